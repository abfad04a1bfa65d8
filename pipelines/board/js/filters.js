// Keep what is asked for in the address (after #, so that it never leaves the browser), and find the rows that fit.

const ASKED = { q: "", kind: "", site: "", supplier: "", level: "", owner: "", sort: "value", down: "yes", row: "" };
const FILTERS = ["q", "kind", "site", "supplier", "level", "owner"];

function askedFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(ASKED).map(([name, usual]) => [name, given.get(name) ?? usual]));
}

function addressOf(asked) {
  const told = Object.entries(asked).filter(([name, value]) => value !== ASKED[name]);
  return told.length ? `#${new URLSearchParams(told)}` : "#";
}

function writeAddress(asked) {
  if (addressOf(asked) !== (location.hash || "#")) history.replaceState(null, "", addressOf(asked));
}

function isFiltered(asked) {
  return FILTERS.some((name) => asked[name]);
}

/** Return the places of the rows that fit, in the order asked for. */
function findRows(board) {
  const { data, asked } = board;
  const words = asked.q.toLowerCase().split(/\s+/).filter(Boolean);
  const tests = [
    asked.kind && ((k) => data.kinds[data.columns.kind[k]] === asked.kind),
    asked.level && ((k) => data.columns.level[k] === asked.level),
    asked.site && ((k) => thing(data, "site", k)[0] === asked.site),
    asked.supplier && ((k) => thing(data, "supplier", k)[0] === asked.supplier),
    asked.owner && ((k) => data.todo[k] && (asked.owner === "any" || data.todo[k][0] === asked.owner)),
    words.length && ((k) => words.every((word) => textOf(board, k).includes(word))),
  ].filter(Boolean);
  const found = allPlaces(data).filter((place) => tests.every((test) => test(place)));
  return sorted(data, found, asked);
}

function textOf(board, place) {
  board.texts[place] ??= searchText(board.data, place);
  return board.texts[place];
}

/** Sort by what was asked for; rows that lack it come last either way, equals stay in the order of value. */
function sorted(data, places, asked) {
  if (asked.sort === "value" && asked.down) return places;
  const key = SORT_KEYS[asked.sort] ?? SORT_KEYS.value;
  const sign = asked.down ? -1 : 1;
  return places
    .map((place) => [key(data, place), place])
    .sort(([a, i], [b, j]) => (a === null) - (b === null) || sign * ((a > b) - (a < b)) || i - j)
    .map(([, place]) => place);
}

const SORT_KEYS = {
  title: (data, k) => (thing(data, "supplier", k)[1] || thing(data, "product", k)[1]).toLowerCase(),
  p: (data, k) => data.columns.p[k],
  value: (data, k) => data.columns.value[k],
  act_by: (data, k) => data.todo[k]?.[2] ?? null,
};

/** Return [value, label, count] of what a filter can be set to. */
function choices(data, name) {
  const label = {
    kind: (k) => [data.kinds[data.columns.kind[k]], KIND[data.kinds[data.columns.kind[k]]]],
    level: (k) => [data.columns.level[k], LEVEL[data.columns.level[k]]],
    site: (k) => thing(data, "site", k),
    supplier: (k) => thing(data, "supplier", k),
  }[name];
  const found = new Map();
  for (const place of allPlaces(data)) {
    const [value, words] = label(place);
    if (value) found.set(value, [value, words, (found.get(value)?.[2] ?? 0) + 1]);
  }
  const options = [...found.values()];
  const order = { kind: data.kinds, level: Object.keys(LEVEL) }[name];
  if (order) return options.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
  return options.sort((a, b) => a[1].localeCompare(b[1], "en", { numeric: true }));
}
