// The backend's fixed JSON.
import type { Money } from "../money";
import { call } from "./client";

export interface User {
  id: string;
  username: string;
  roles: string[];
}
export interface Account {
  number: string;
  nickname: string | null;
  currency: string;
  balance: Money;
  available: Money;
  state: string;
}
export interface Step {
  event: string;
  time: string;
  position: string;
}
export interface Transaction {
  id: string;
  kind: string;
  from: string;
  to: string;
  amount: Money;
  state: "pending" | "accepted" | "rejected" | "reversed";
  reason?: string | null;
  reference?: string | null;
  correlationid: string;
  steps: Step[];
}
export interface Init {
  user: User;
  accounts: Account[];
  recent: Transaction[];
  position: string;
}
export interface Line {
  position: string;
  time: string;
  description: string;
  amount: Money;
  balance: Money;
}
export interface Statement {
  opening: Money;
  lines: Line[];
  closing: Money;
}
export interface Started {
  transaction: { id: string; correlationid: string; state: string };
  position: string;
}

export const register = (username: string, password: string) => call("POST", "/users", { username, password });
export const signIn = (username: string, password: string) => call("POST", "/sessions", { username, password });
export const signOut = () => call("DELETE", "/sessions");
export const init = () => call<Init>("GET", "/init");
export const openAccount = (currency: string, nickname: string, key: string) =>
  call<{ account: Account }>("POST", "/accounts", { currency, nickname }, key);
export const statement = (number: string) => call<Statement>("GET", `/accounts/${number}/statement`);
export const transaction = (id: string) => call<Transaction>("GET", `/transactions/${id}`);
export const startTransaction = (body: object, key: string) => call<Started>("POST", "/transactions", body, key);
