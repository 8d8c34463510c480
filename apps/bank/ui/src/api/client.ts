// One way to call the backend: JSON in, JSON or a Problem out.

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

/** Nobody is signed in (any more); a wrong password is a 401 too and another matter. */
export const isSignedOut = (error: unknown) => error instanceof Problem && error.code === "not_signed_in";

const WORDS: Record<string, string> = {
  username_taken: "That user name is taken.",
  bad_credentials: "User name or password is wrong.",
  too_many_attempts: "Too many attempts. Wait a minute.",
  insufficient_funds: "There is not enough money in the account.",
  unknown_account: "There is no account with that number.",
  account_closed: "The account is closed.",
  account_frozen: "The account is frozen.",
  currency_mismatch: "The other account has another currency.",
  same_account: "From and to are the same account.",
  not_your_account: "That account is not yours.",
};

/** A reason in the words of the page. */
export const words = (code: string, fallback?: string) => WORDS[code] ?? fallback ?? code.replaceAll(/[_-]/g, " ");

export async function call<T>(method: string, path: string, body?: unknown, key?: string): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key) headers["idempotency-key"] = key;
  const answer = await fetch(`/api${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 204) return undefined as T;
  const json = await answer.json().catch(() => ({}));
  if (answer.ok) return json as T;
  const code = json.code ?? "unavailable";
  throw new Problem(answer.status, code, words(code, json.details?.reason ?? json.detail));
}
