// Save the rows that are found as CSV. A cell that a spreadsheet would take for a formula is made text.

const CSV_COLUMNS = {
  row_id: (row) => row.id,
  kind: (row) => KIND[row.kind],
  supplier_id: (row) => row.supplierId,
  supplier: (row) => row.supplier,
  product_id: (row) => row.productId,
  product: (row) => row.product,
  site_id: (row) => row.siteId,
  site: (row) => row.site,
  from: (row, data) => isoDay(data.as_of, row.when),
  to: (row, data) => isoDay(data.as_of, row.till),
  probability: (row) => (row.p / 10000).toFixed(4),
  level: (row) => LEVEL[row.level].slice(2),
  low: (row) => row.low,
  middle: (row) => row.mid,
  high: (row) => row.high,
  unit: (row) => (row.isShift ? "units" : "days late"),
  usual_units: (row) => row.usual,
  value_at_risk: (row) => amount(row.value),
  of_value: (row) => amount(row.of),
  reason_1: (row) => row.reasons[0],
  reason_2: (row) => row.reasons[1],
  reason_3: (row) => row.reasons[2],
  owner: (row) => row.owner,
  next_step: (row) => row.step,
  act_by: (row, data) => (row.owner ? isoDay(data.as_of, row.act_by) : ""),
  tier: (row) => row.tier,
  publication: (row, data) => data.publication,
};

function isoDay(asOf, days) {
  return dateAhead(asOf, days).toISOString().slice(0, 10);
}

function amount(cents) {
  return cents === null ? "" : (cents / 100).toFixed(2);
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvText(data, places) {
  const columns = Object.entries(CSV_COLUMNS);
  const lines = places.map((place) => {
    const row = rowAt(data, place);
    return columns.map(([, value]) => csvCell(value(row, data))).join(",");
  });
  return ["\ufeff" + columns.map(([name]) => name).join(","), ...lines].join("\r\n") + "\r\n";
}

function saveCsv(board) {
  const link = element("a", "");
  const address = URL.createObjectURL(new Blob([csvText(board.data, board.found)], { type: "text/csv;charset=utf-8" }));
  link.href = address;
  link.download = `risks-${board.data.as_of}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
