// Numbers and names as a run shows them; what isn't known is a dash.

export type Value = string | number | boolean | null;

export const known = <T>(value: T | null | undefined): value is T =>
  value !== null && value !== undefined && !Number.isNaN(value);

const DASH = "–";
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const percent = (value: Value, digits = 0) =>
  known(value) ? `${(100 * Number(value)).toFixed(digits)}%` : DASH;
export const whole = (value: Value) => (known(value) ? WHOLE.format(Number(value)) : DASH);
export const decimal = (value: Value) =>
  known(value) ? Number(value).toFixed(2).replace(/^-(0\.00)$/, "$1") : DASH;
/** Four digits. */
export const plain = (value: Value) => (known(value) ? String(Number(Number(value).toPrecision(4))) : DASH);
/** A class without its synonyms. */
export const short = (name: Value) => (known(name) ? String(name).split(",")[0] : DASH);
