// Read the columns of the page's data into rows that are made when they are asked for.

function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const numbers = new Map(Array.from(data.marks, (mark, number) => [mark, number]));
  const columns = data.columns;
  for (const [name, column] of Object.entries(columns)) {
    if (typeof column === "string") columns[name] = Array.from(column, (mark) => numbers.get(mark) ?? null);
  }
  columns.value = fromDrops(columns.value ?? []);
  columns.level = (columns.kind ?? []).map((kind, k) => levelOf(data, kind, columns.p[k]));
  return data;
}

/** Values come as how far each lies below the one before; the rows without one are last. */
function fromDrops(drops) {
  let value = 0;
  return drops.map((drop) => (drop === null ? null : (value -= drop)));
}

function levelOf(data, kind, p) {
  return data.kinds[kind] === "overdue" ? "past" : data.floors.find(([, floor]) => p >= floor)[0];
}

function thing(data, name, place) {
  return data.things[name][data.columns[name][place]];
}

function rowId(data, place) {
  const known = data.columns.row_id[place];
  if (known !== 0) return known;
  return `${thing(data, "product", place)[0]}|${thing(data, "site", place)[0]}|w${data.columns.window[place] - 1}`;
}

function reasonsOf(data, place) {
  const found = [];
  for (const name of ["driver_1", "driver_2", "driver_3"]) {
    const text = data.columns[name][place];
    if (text !== undefined && text >= 0) found.push(data.texts[text]);
  }
  return found;
}

function curveOf(data, place) {
  const weeks = data.weeks.length;
  return data.columns.history.slice(place * weeks, (place + 1) * weeks);
}

/** Return one row as plain values; `place` is its rank by value, from 0. */
function rowAt(data, place) {
  const column = (name) => data.columns[name][place];
  const [supplierId, supplier] = thing(data, "supplier", place);
  const [productId, product] = thing(data, "product", place);
  const [siteId, site] = thing(data, "site", place);
  const [owner, step, act_by, tier, told] = data.todo[place] ?? [];
  const kind = data.kinds[column("kind")];
  return {
    place, kind, isShift: kind === "surge" || kind === "drop", id: rowId(data, place), p: column("p"),
    p_before: column("p_before"), value: column("value"), of: column("of"), when: column("when"),
    till: column("when") + column("days"),
    low: column("low"), mid: column("mid"), high: column("high"), usual: column("usual"), moved: data.moved[place] ?? null,
    evidence: column("evidence_n"), level: column("level"), supplierId, supplier, productId, product,
    siteId, site, title: supplier || product, published_by: data.texts[column("published_by")] ?? "",
    reasons: reasonsOf(data, place), curve: curveOf(data, place), owner, step, act_by, tier, told,
  };
}

function allPlaces(data) {
  return Array.from({ length: data.n }, (_, place) => place);
}

function placeOf(data, id) {
  for (let place = 0; place < data.n; place += 1) if (rowId(data, place) === id) return place;
  return -1;
}

/** Return the places of the rows that stand in one panel with this row: of its supplier, or of its product and site. */
function companions(data, row) {
  const { supplier, product, site, window: weeks } = data.columns;
  const same = row.isShift
    ? (k) => weeks[k] > 0 && product[k] === product[row.place] && site[k] === site[row.place]
    : (k) => weeks[k] === 0 && supplier[k] === supplier[row.place];
  return allPlaces(data).filter(same);
}

function searchText(data, place) {
  const words = ["supplier", "product", "site"].flatMap((name) => thing(data, name, place));
  const [owner = "", step = ""] = data.todo[place] ?? [];
  return [...words, ...reasonsOf(data, place), rowId(data, place), owner, step].join(" ").toLowerCase();
}
