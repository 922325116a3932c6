// Numbers and values as text. The server renders the first snapshot in the same way (page.rs).

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const hundredth = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const count = (n) => whole.format(n);

export const rate = (perSecond) =>
  perSecond > 0 && perSecond < 9.95 ? tenth.format(perSecond) : whole.format(perSecond);

export function seconds(s) {
  if (s < 1) return `${whole.format(s * 1e3)} ms`;
  if (s < 10) return `${tenth.format(s)} s`;
  if (s < 120) return `${whole.format(s)} s`;
  if (s < 7200) return `${whole.format(s / 60)} min`;
  if (s < 172800) return `${tenth.format(s / 3600)} h`;
  return `${tenth.format(s / 86400)} d`;
}

export function bytes(n) {
  if (n < 1e3) return `${n} B`;
  return n < 1e6 ? `${tenth.format(n / 1e3)} kB` : `${tenth.format(n / 1e6)} MB`;
}

/** `12:34:56` of a time in RFC 3339. */
export const clock = (time) => time.slice(11, 19);

/** `user_count` as words. */
export const words = (name) => name.replaceAll("_", " ");

export const isNumber = (column) =>
  column.type === "bigint" || column.type === "double" || column.type.startsWith("decimal");

/** A value of a row as the reader sees it. */
export function shown(value, column) {
  if (value === null || value === undefined) return "unknown";
  if (value === "") return "(empty)";
  if (column.type === "bigint") return typeof value === "number" ? count(value) : value;
  if (column.type === "double") return typeof value === "number" ? hundredth.format(value) : value;
  if (column.type === "timestamp") return value.replace("T", " ").replace("Z", "");
  return String(value);
}

/** A measured number: whole where the column counts, two digits where it averages. */
export const measured = (value, column) =>
  column.type === "bigint" ? count(value) : hundredth.format(value);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
