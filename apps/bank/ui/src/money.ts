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

/** What a person types, or why it is no amount. */
export function parse(text: string, currency: string): { amount: Money } | { error: string } {
  const clean = text.trim().replaceAll(",", "").replace(/^[£€$¥]/, "");
  if (clean === "") return { error: "Enter an amount" };
  const match = /^(\d{1,13})(?:\.(\d+))?$/.exec(clean);
  if (!match) return { error: "Enter an amount like 12.50" };
  const fraction = match[2] ?? "";
  const places = decimals(currency);
  if (fraction.length > places) return { error: places ? `At most ${places} decimals` : `${currency} has no decimals` };
  const minor = BigInt(match[1] + fraction.padEnd(places, "0"));
  if (minor === 0n) return { error: "Enter more than zero" };
  return { amount: { minor: minor.toString(), currency } };
}

export const isMore = (a: Money, b: Money) => BigInt(a.minor) > BigInt(b.minor);
