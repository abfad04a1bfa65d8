// The panel of a supplier, or of a product at a site: the row it was opened from, what it adds up to, all its rows.

const LADDER = [
  "On time, with the days of grace", "On time by the promise", "On time by the day asked for",
  "In full by the day asked for", "The same, cancelled lines counted", "On time by the promise, last 4 weeks",
];

function openRow(board, id) {
  board.asked.row = id;
  writeAddress(board.asked);
  openPanel(board, id);
}

/** Show the panel of a row that is on the board; the dialog itself gives the focus back when it closes. */
function openPanel(board, id) {
  const place = placeOf(board.data, id);
  if (place < 0) return;
  const row = rowAt(board.data, place);
  const rows = companions(board.data, row).map((k) => rowAt(board.data, k));
  byId("panel-body").replaceChildren(...panelParts(board, row, rows));
  if (!byId("panel").open) byId("panel").showModal();
  byId("panel").scrollTop = 0;
}

function panelParts(board, row, rows) {
  const supplier = row.isShift ? undefined : board.data.suppliers[row.supplierId];
  return [
    closeButton(),
    ...titleParts(row),
    facts(row.isShift ? shiftFacts(board, row, rows) : supplierFacts(board, rows, supplier)),
    ...thisRow(board, row),
    ...(row.isShift ? windowParts(board, rows) : supplierParts(board, supplier)),
    element("h3", "", "Risks, largest first"),
    rowsTable(board, rows),
  ];
}

function closeButton() {
  return button("btn x", "Close", () => byId("panel").close());
}

function titleParts(row) {
  const title = element("h2", "", row.isShift ? `${row.product}, ${row.site}` : row.supplier);
  title.id = "panel-title";
  return [title, element("div", "sub", row.isShift ? `${row.productId} at ${row.siteId}` : row.supplierId)];
}

function facts(pairs) {
  return element("div", "facts", ...pairs.map(([words, value]) =>
    element("div", "", element("span", "", words), element("b", "", value))));
}

function valueOf(board, rows) {
  const known = rows.filter((row) => row.value !== null);
  return known.length ? money(known.reduce((sum, row) => sum + row.value, 0), board.data.sign) : "no cost known";
}

function supplierFacts(board, rows, supplier) {
  const high = rows.filter((row) => row.level === "high").length;
  const onTime = supplier?.ladder[1] ?? null;
  return [
    ["Value at risk", valueOf(board, rows)],
    ["High-risk rows", `${count(high)} of ${count(rows.length)}`],
    ["On time, last 13 weeks", onTime === null ? "no data" : share(onTime)],
  ];
}

function shiftFacts(board, row, rows) {
  const usual = rows.reduce((sum, one) => sum + one.usual, 0);
  return [
    ["Value at risk", valueOf(board, rows)],
    ["High-risk windows", `${rows.filter((one) => one.level === "high").length} of ${rows.length}`],
    ["Usual units in them", count(usual)],
    ...(row.moved === null ? [] : [["Last 2 weeks", `${Math.abs(row.moved)}% ${row.moved < 0 ? "below" : "above"} the year before`]]),
  ];
}

/** Tell the row that was clicked, and how its numbers can be traced to the published table. */
function thisRow(board, row) {
  const reason = board.data.reasons[row.place];
  const moved = reason ? `Since ${board.data.before || "the week before"}: ${reason}.` : sentence(row.told);
  const table = row.isShift ? board.data.tables.shift : board.data.tables.delivery;
  const command = `bullwhip explain '${row.id.replaceAll("'", "'\\''")}'`;
  return [
    element("h3", "", row.isShift ? when(row, board.data.as_of) : `${row.product}: ${when(row, board.data.as_of)}`),
    element("p", "line", `${share(row.p)} ${LEVEL[row.level]}. ${impact(row).filter(Boolean).join(", ")}. `
      + `At risk: ${worth(row, board.data.sign)} ${worthOf(row, board.data.sign)}.`),
    reasonList(row),
    ownerCell(board.data, row),
    ...(moved ? [element("p", "line", moved)] : []),
    element("p", "trace", "Row ", element("code", "", row.id), ` of ${table}, publication `,
      element("code", "", board.data.publication), `. ${evidence(row)} The whole story: `, element("code", "", command)),
  ];
}

function evidence(row) {
  const seen = row.isShift ? plural(row.evidence, "past window") : plural(row.evidence, "past delivery", "past deliveries");
  return `${seen} to judge by; said by ${row.published_by}.`;
}

function supplierParts(board, supplier) {
  if (!supplier) return [];
  const curve = supplier.weeks.filter((cents) => cents !== null).length > 1
    ? [element("h3", "", "Value at risk per week"), trend(board, supplier.weeks)] : [];
  return [...curve, element("h3", "", "On time, last 13 weeks"), ladder(supplier)];
}

function ladder(supplier) {
  const rows = LADDER.map((words, k) => [words, supplier.ladder[k]]).filter(([, rung]) => rung !== null);
  const body = element("tbody", "", ...rows.map(([words, rung]) => element("tr", "",
    headCell(words), element("td", "", bar(rung)), element("td", "", share(rung)))));
  const told = `${plural(supplier.matured_lines_13w, "delivery", "deliveries")} came due; ${plural(supplier.open_lines, "line")} `
    + `open now, ${count(supplier.overdue_lines)} of them late already.`;
  return element("div", "", element("table", "mini ladder", body), element("p", "line", told));
}

function headCell(words) {
  const made = element("th", "", words);
  made.scope = "row";
  return made;
}

function bar(basisPoints) {
  const box = { class: "meter", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" };
  return drawn("svg", box, drawn("rect", { class: "track", width: 100, height: 7 }),
    drawn("rect", { class: "plain", width: basisPoints / 100, height: 7 }));
}

/** Draw value at risk over the weeks, from nothing up to its largest. */
function trend(board, cents) {
  const [left, top, width, height] = [58, 12, 630, 104];
  const most = Math.max(...cents.filter((value) => value !== null)) || 1;
  const x = (k) => left + (width * k) / (cents.length - 1);
  const y = (value) => top + height * (1 - value / most);
  const there = cents.map((value, k) => [k, value]).filter(([, value]) => value !== null);
  const line = there.map(([k, value]) => [x(k), y(value)]);
  const area = [[line[0][0], y(0)], ...line, [line.at(-1)[0], y(0)]];
  const picture = drawn("svg", { class: "trend", viewBox: "0 0 700 140", role: "img",
    "aria-label": `Value at risk from ${money(there[0][1], board.data.sign)} to ${money(there.at(-1)[1], board.data.sign)}` });
  for (const value of [0, most / 2, most]) {
    picture.append(drawn("line", { class: "gr", x1: left, x2: left + width, y1: y(value), y2: y(value) }),
      drawn("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, money(value, board.data.sign)));
  }
  picture.append(drawn("polygon", { class: "ar", points: asPoints(area) }),
    drawn("polyline", { class: "ln", points: asPoints(line) }));
  const [first, last] = [there[0][0], cents.length - 1];
  const marked = [[first, "start"], [last, "end"]];
  if (last - first > 5) marked.splice(1, 0, [Math.round((first + last) / 2), "middle"]);
  for (const [k, anchor] of marked) {
    picture.append(drawn("text", { x: x(k), y: top + height + 18, "text-anchor": anchor }, board.data.weeks[k]));
  }
  return picture;
}

/** Draw the likely range of every window next to what is usual. */
function windowParts(board, rows) {
  const inTime = [...rows].sort((a, b) => a.when - b.when);
  const most = Math.max(...inTime.flatMap((row) => [row.high, row.usual]), 1);
  const body = element("tbody", "", ...inTime.map((row) => element("tr", "",
    headCell(days(row, board.data.as_of)),
    element("td", "", range(row, most)),
    element("td", "", `${count(row.low)} to ${count(row.high)}`))));
  return [
    element("h3", "", "Units likely per window"), element("table", "mini ladder", body),
    element("p", "line", "The bar is the likely range, the dot the middle case, the line what is usual."),
  ];
}

function range(row, most) {
  const x = (value) => 4 + (252 * value) / most;
  return drawn("svg", { class: "range", viewBox: "0 0 260 14", "aria-hidden": "true" },
    drawn("rect", { class: "track", x: x(row.low), y: 4, width: Math.max(x(row.high) - x(row.low), 1), height: 6, rx: 3 }),
    drawn("line", { class: "usual", x1: x(row.usual), x2: x(row.usual), y1: 0, y2: 14 }),
    drawn("circle", { class: row.level, cx: x(row.mid), cy: 7, r: 4 }));
}

function rowsTable(board, rows) {
  const heads = [["c-what", "What"], ["c-p", "Probability"], ["c-sp", "12 weeks"], ["c-imp", "Impact"], ["c-var num", "Value at risk"]];
  const head = element("tr", "", ...heads.map(([name, words]) => {
    const made = element("th", name, words);
    made.scope = "col";
    return made;
  }));
  const body = element("tbody", "", ...rows.slice(0, STEP).map((row) => panelRow(board, row)));
  const table = element("table", "risk", element("thead", "", head), body);
  if (rows.length <= STEP) return table;
  const rest = rows.slice(STEP);
  const more = button("btn", `Show ${count(rest.length)} more`, () => {
    body.append(...rest.map((row) => panelRow(board, row)));
    more.remove();
  });
  return element("div", "", table, more);
}

function panelRow(board, row) {
  const title = button("", row.isShift ? KIND[row.kind] : row.product, () => openRow(board, row.id));
  const lines = row.isShift ? [days(row, board.data.as_of)] : [row.site, when(row, board.data.as_of)];
  const what = element("span", "what", title, element("code", "", row.id));
  const made = tableRow(board.data, row, [what, ...lines], false);
  if (row.id === board.asked.row) made.setAttribute("aria-current", "true");
  return made;
}

function panelClosed(board) {
  board.asked.row = "";
  writeAddress(board.asked);
}
