// Amounts are whole minor units as bigint; a float never holds money.

export interface Money {
  minor: string;
  currency: string;
}

export const CURRENCIES = ["GBP", "EUR", "USD", "CHF", "JPY", "SEK", "NOK", "DKK"];

const decimals = (currency: string) => (currency === "JPY" ? 0 : 2);

const SYMBOLS: Record<string, string> = { GBP: "£", EUR: "€", USD: "$", JPY: "¥" };

/** What a person reads: −£1,050.20 */
export function format({ minor, currency }: Money): string {
  const value = BigInt(minor);
  const digits = (value < 0n ? -value : value).toString().padStart(decimals(currency) + 1, "0");
  const cut = digits.length - decimals(currency);
  const whole = digits.slice(0, cut).replace(/\B(?=(\d{3})+$)/g, ",");
  const fraction = decimals(currency) ? `.${digits.slice(cut)}` : "";
  const symbol = SYMBOLS[currency];
  const amount = symbol ? `${symbol}${whole}${fraction}` : `${whole}${fraction} ${currency}`;
  return value < 0n ? `−${amount}` : amount;
}

/** What a person types, or why it is no amount. Commas stand between thousands and nowhere else: `1,50` is nobody's 150. */
export function parse(text: string, currency: string): { amount: Money } | { error: string } {
  const clean = text.trim().replace(/^[£€$¥]/, "");
  const places = decimals(currency);
  if (clean === "") return { error: "Enter an amount" };
  const match = /^(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d+))?$/.exec(clean);
  if (!match) return { error: `Enter an amount like ${places ? "12.50" : "1250"}` };
  const [, whole = "", fraction = ""] = match;
  if (fraction.length > places) return { error: places ? `At most ${places} decimals` : `${currency} has no decimals` };
  const minor = BigInt(whole.replaceAll(",", "") + fraction.padEnd(places, "0"));
  if (minor > MINOR_MAX) return { error: "More than can be moved at once" };
  if (minor === 0n) return { error: "Enter more than zero" };
  return { amount: { minor: minor.toString(), currency } };
}

/** The backend's limit (`money.rs`). */
const MINOR_MAX = 1_000_000_000_000_000n;

export const isMore = (a: Money, b: Money) => BigInt(a.minor) > BigInt(b.minor);
