// Draw the table, its tabs, its filters and what is counted of it.

const STEP = 50;
const ALL_OF = { kind: "All kinds", site: "All sites", supplier: "All suppliers", level: "All levels" };

function byId(id) {
  return document.getElementById(id);
}

/** Find the rows anew and show the first of them. */
function refresh(board) {
  board.found = findRows(board);
  board.shown = 0;
  byId("body").replaceChildren();
  showMore(board);
  markTabs(board);
  markSorting(board);
  for (const name of Object.keys(ALL_OF)) byId(name).value = board.asked[name];
  tellCounts(board);
  if (document.activeElement !== byId("q")) byId("q").value = board.asked.q;
  byId("clear").hidden = !isFiltered(board.asked);
  writeAddress(board.asked);
}

function ask(board, change) {
  Object.assign(board.asked, change);
  refresh(board);
}

function showMore(board) {
  const next = board.found.slice(board.shown, board.shown + STEP);
  byId("body").append(...next.map((place) => mainRow(board, place)));
  board.shown += next.length;
  if (!board.found.length) byId("body").append(emptyRow(board));
  byId("more").hidden = board.shown >= board.found.length;
  byId("more").textContent = `Show ${Math.min(STEP, board.found.length - board.shown)} more`;
  byId("shown").textContent = `${count(board.shown)} of ${plural(board.found.length, "row")}`;
}

function mainRow(board, place) {
  const row = rowAt(board.data, place);
  const name = button("", row.title, () => openRow(board, row.id));
  name.setAttribute("aria-haspopup", "dialog");
  const made = tableRow(board.data, row, [element("span", "what", name), ofWhat(row), when(row, board.data.as_of)], true);
  made.addEventListener("click", (event) => {
    if (!event.target.closest("button") && !String(getSelection())) {
      name.focus();
      name.click();
    }
  });
  return made;
}

function emptyRow(board) {
  const made = cell("empty", board.data.n ? "No row fits these filters." : "No published risk carries a value.");
  made.colSpan = 7;
  const row = element("tr", "", made);
  row.setAttribute("role", "row");
  return row;
}

function tellCounts(board) {
  const { columns, sign } = board.data;
  const high = board.found.filter((place) => columns.level[place] === "high").length;
  const known = board.found.filter((place) => columns.value[place] !== null);
  const value = known.reduce((sum, place) => sum + columns.value[place], 0);
  const worth = known.length ? `, ${money(value, sign)} at risk` : "";
  const told = `${plural(board.found.length, "row")}, ${count(high)} high${worth}`;
  byId("count").textContent = told;
  byId("count").dataset.cents = value;
  byId("pf").textContent = [document.title, told, filterWords(board)].filter(Boolean).join(". ");
}

function filterWords(board) {
  const chosen = Object.keys(ALL_OF).filter((name) => board.asked[name]).map((name) => byId(name).selectedOptions[0]?.text);
  const { q, owner } = board.asked;
  return [...chosen, q && `“${q}”`, owner && (owner === "any" ? "to do" : owner)].filter(Boolean).join(", ");
}

function markTabs(board) {
  for (const tab of byId("tabs").children) tab.setAttribute("aria-pressed", tab.dataset.owner === board.asked.owner);
}

function drawTabs(board) {
  const owners = new Map();
  for (const [owner] of Object.values(board.data.todo)) owners.set(owner, (owners.get(owner) ?? 0) + 1);
  const listed = Object.keys(board.data.todo).length;
  const every = [["", "All risks", board.data.n], ["any", "To do", listed], ...[...owners].sort()
    .map(([owner, rows]) => [owner, owner[0].toUpperCase() + owner.slice(1), rows])];
  byId("tabs").replaceChildren(...every.map(([owner, words, rows]) => {
    const tab = button("", words, () => ask(board, { owner }));
    tab.append(element("b", "", count(rows)));
    tab.dataset.owner = owner;
    return tab;
  }));
}

function drawFilters(board) {
  for (const [name, all] of Object.entries(ALL_OF)) {
    const options = choices(board.data, name).map(([value, words, rows]) => new Option(`${words} (${count(rows)})`, value));
    byId(name).replaceChildren(new Option(all, ""), ...options);
    byId(name).addEventListener("change", () => ask(board, { [name]: byId(name).value }));
  }
  byId("q").addEventListener("input", () => ask(board, { q: byId("q").value.trim() }));
  byId("clear").addEventListener("click", () => {
    byId("q").value = "";
    ask(board, Object.fromEntries(FILTERS.map((name) => [name, ""])));
    byId("q").focus();
  });
}

function drawSorting(board) {
  for (const head of document.querySelectorAll("#table th[data-sort]")) {
    head.replaceChildren(button("", head.textContent, () => sortBy(board, head.dataset.sort)));
  }
}

function sortBy(board, name) {
  const again = board.asked.sort === name;
  const firstDown = name === "p" || name === "value";
  ask(board, { sort: name, down: (again ? !board.asked.down : firstDown) ? "yes" : "" });
}

function markSorting(board) {
  for (const head of document.querySelectorAll("#table th[data-sort]")) {
    const mine = head.dataset.sort === board.asked.sort;
    head.setAttribute("aria-sort", mine ? (board.asked.down ? "descending" : "ascending") : "none");
  }
}
