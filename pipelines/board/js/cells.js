// Build the elements of a row. Texts go in by textContent alone.

const SVG = "http://www.w3.org/2000/svg";
const SPARK = { width: 72, height: 20, leastSpan: 10 };

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(className, text, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

/** Return the points of a curve through the values that are there, on a scale of their own. */
function curvePoints(values, width, height, leastSpan) {
  const there = values.map((value, k) => [k, value]).filter(([, value]) => value !== null);
  if (there.length < 2) return [];
  const known = there.map(([, value]) => value);
  const span = Math.max(Math.max(...known) - Math.min(...known), leastSpan) || 1;
  const low = Math.min(...known) - (span - (Math.max(...known) - Math.min(...known))) / 2;
  const step = width / (values.length - 1);
  return there.map(([k, value]) => [k * step, height - ((value - low) / span) * height]);
}

function asPoints(points) {
  return points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
}

function sparkline(row) {
  const picture = drawn("svg", { class: "spark", viewBox: "-3 -4 80 28", "aria-hidden": "true" });
  const points = curvePoints(row.curve, SPARK.width, SPARK.height, SPARK.leastSpan);
  if (!points.length) return picture;
  const [x, y] = points.at(-1);
  picture.append(drawn("polyline", { points: asPoints(points) }));
  picture.append(drawn("circle", { class: row.level, r: 3, cx: x.toFixed(1), cy: y.toFixed(1) }));
  return picture;
}

function meter(row) {
  const box = { class: "meter", viewBox: "0 0 100 7", preserveAspectRatio: "none", "aria-hidden": "true" };
  return drawn("svg", box,
    drawn("rect", { class: "track", width: 100, height: 7 }),
    drawn("rect", { class: row.level, width: row.p / 100, height: 7 }));
}

function probability(data, row) {
  const moved = change(row, data.before);
  const level = element("span", `lvl ${row.level}`, LEVEL[row.level]);
  return [
    element("div", "prow", element("b", "", share(row.p)), level),
    meter(row),
    element("div", "chg", element("span", moved.name, moved.amount), " ", element("span", "sfx", moved.words)),
  ];
}

function bigAndSmall(big, ...small) {
  return [element("div", "big", big), ...small.map((line) => element("div", "sub", line))];
}

function reasonList(row) {
  if (!row.reasons.length) return element("div", "sub", noReason(row));
  return element("ol", "dr", ...row.reasons.map((reason) => {
    const marked = reason.startsWith("▲ ") || reason.startsWith("▼ ");
    return element("li", reason.startsWith("▼") ? "dn" : "", marked ? reason.slice(2) : reason);
  }));
}

function ownerCell(data, row) {
  const [owner, step] = ownerAndStep(row);
  return element("div", "own", element("b", "", owner), step, element("div", "sub", actBy(row, data.as_of)));
}

function cell(className, ...children) {
  const made = element("td", className, ...children);
  made.setAttribute("role", "cell");
  return made;
}

/** Return the table row of a risk; the first cell holds a title and lines below it. */
function tableRow(data, row, [title, ...lines], wide) {
  const made = element("tr", "",
    cell("c-what", title, ...lines.map((line) => element("div", "sub", line))),
    cell("c-p", ...probability(data, row)),
    cell("c-sp", sparkline(row)),
    cell("c-imp", ...bigAndSmall(...impact(row))),
    cell("c-var num", ...bigAndSmall(worth(row, data.sign), worthOf(row, data.sign))));
  if (wide) made.append(cell("c-dr", reasonList(row)), cell("c-own", ownerCell(data, row)));
  made.setAttribute("role", "row");
  made.dataset.place = row.place;
  return made;
}
