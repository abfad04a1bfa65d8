"use strict";

// Say numbers, days and names in one way; wording.py and view.py say the same of the same rows.

const LEVEL = { high: "◆ High", medium: "▲ Medium", low: "● Low", past: "■ Late" };
const KIND = { late: "Late delivery", overdue: "Already late", surge: "Demand surge", drop: "Demand drop" };
const SCALES = [[1e9, "bn", 2], [1e6, "M", 2], [1e3, "k", 1], [1, "", 0]];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MANY_DAYS = 60;

function rounded(amount, places) {
  return Math.floor(amount * 10 ** places + 0.5) / 10 ** places;
}

function money(cents, sign) {
  const amount = Math.abs(cents) / 100;
  const [unit, letter, most] = SCALES.find(([unit]) => amount >= 0.9995 * unit || unit === 1);
  let places = most;
  while (places && rounded(amount / unit, places) >= 10 ** (most - places + 1)) places -= 1;
  return `${cents < 0 ? "−" : ""}${sign}${rounded(amount / unit, places).toFixed(places)}${letter}`;
}

function percent(basisPoints) {
  return Math.floor(basisPoints / 100 + 0.5);
}

function share(basisPoints) {
  if (basisPoints > 0 && basisPoints < 50) return "<1%";
  if (basisPoints > 9950 && basisPoints < 10000) return ">99%";
  return `${percent(basisPoints)}%`;
}

function count(number) {
  return (number < 0 ? "−" : "") + String(Math.abs(number)).replace(/\B(?=(\d{3})+$)/g, ",");
}

function sentence(words) {
  return words ? `${words[0].toUpperCase()}${words.slice(1)}.` : "";
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

function dateAhead(asOf, days) {
  const date = new Date(`${asOf}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date;
}

function dayAhead(asOf, days) {
  const date = dateAhead(asOf, days);
  const year = date.getUTCFullYear();
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}${String(year) === asOf.slice(0, 4) ? "" : ` ${year}`}`;
}

function many(days) {
  return days > MANY_DAYS ? `over ${MANY_DAYS}` : String(days);
}

function delayImpact(low, mid, high) {
  if (mid === null) return ["Date open", "too far ahead to tell"];
  const days = Math.abs(mid);
  const big = mid === 0 ? "on time" : `${many(days)} ${days === 1 ? "day" : "days"} ${mid > 0 ? "late" : "early"}`;
  if (low === null || high === null) return [big, ""];
  if (low < 0 && high > 0) return [big, `likely ${many(-low)} early to ${many(high)} late`];
  if (low < 0) return [big, `likely ${many(-low)} early to ${high === 0 ? "on time" : `${many(-high)} early`}`];
  if (low > MANY_DAYS) return [big, "likely months late"];
  return [big, low < high ? `likely ${low} to ${many(high)}` : `likely ${many(high)}`];
}

function shiftImpact(low, mid, high, usual) {
  return [plural(mid, "unit"), `likely ${count(low)} to ${count(high)}`, `usually ${count(usual)}`];
}

function impact(row) {
  return row.isShift ? shiftImpact(row.low, row.mid, row.high, row.usual) : delayImpact(row.low, row.mid, row.high);
}

function when(row, asOf) {
  const begin = dayAhead(asOf, row.when);
  if (row.kind === "late") return `${KIND.late}, due ${begin}`;
  if (row.kind === "overdue") return `${KIND.overdue}, was due ${begin}`;
  return `${KIND[row.kind]}, ${days(row, asOf)}`;
}

function days(row, asOf) {
  return `${dayAhead(asOf, row.when)} to ${dayAhead(asOf, row.till)}`;
}

function ofWhat(row) {
  return row.isShift ? row.site : `${row.product}, ${row.site}`;
}

function worth(row, sign) {
  return row.value === null ? "no cost known" : money(row.value, sign);
}

function worthOf(row, sign) {
  if (row.of !== null) return `${row.isShift ? "usual" : "of"} ${money(row.of, sign)}`;
  return `${count(row.usual)} units ${row.isShift ? "usual" : "open"}`;
}

function change(row, before) {
  if (!before || row.kind === "overdue") return { name: "", amount: "", words: "" };
  if (row.p_before === null) return { name: "new", amount: "new", words: "" };
  const moved = percent(row.p) - percent(row.p_before);
  if (!moved) return { name: "", amount: "", words: "no change" };
  const points = `${moved > 0 ? "↑" : "↓"} ${Math.abs(moved)} ${Math.abs(moved) === 1 ? "pt" : "pts"}`;
  return { name: moved > 0 ? "up" : "down", amount: points, words: `on ${before}` };
}

function noReason(row) {
  if (row.kind === "overdue") return "The promised day has passed";
  if (row.published_by.startsWith("model")) return "Not among the rows explained";
  return `By a simple rule: ${row.published_by}`;
}

function ownerAndStep(row) {
  if (row.owner) return [row.owner[0].toUpperCase() + row.owner.slice(1), row.step];
  return row.kind === "overdue"
    ? ["Too late to prevent", "Chase the delivery; plan with the likely date"]
    : ["Watch", "Not on this week's list"];
}

function actBy(row, asOf) {
  if (!row.owner) return "";
  return `by ${dayAhead(asOf, row.act_by)}${row.tier === 2 ? ", when time allows" : ""}`;
}
