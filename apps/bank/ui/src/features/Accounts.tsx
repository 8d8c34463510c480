import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import * as bank from "../api/bank";
import { CURRENCIES } from "../money";
import { Alert, Amount, Button, Card, Choice, Field, Link, time } from "../ui";

export function Accounts({ data }: { data: bank.Init }) {
  return (
    <div className="space-y-6">
      <Card title="Accounts">
        {data.accounts.length === 0 && <p className="text-stone-600 dark:text-stone-400">You have no account yet. Open one below.</p>}
        <ul className="divide-y divide-stone-200 dark:divide-stone-700">
          {data.accounts.map((account) => (
            <li key={account.number} className="py-3">
              <Link to={`/accounts/${account.number}`} className="flex flex-wrap items-baseline justify-between gap-x-6">
                <span>
                  <span className="font-medium">{account.nickname ?? `${account.currency} account`}</span>
                  <span className="block text-sm text-stone-600 dark:text-stone-400" data-testid="number">{account.number}</span>
                </span>
                <span className="text-right">
                  <span className="block text-xl" data-testid="balance"><Amount value={account.balance} /></span>
                  <span className="block text-sm text-stone-600 dark:text-stone-400">available <Amount value={account.available} /></span>
                </span>
              </Link>
            </li>
          ))}
        </ul>
        <OpenAccount />
      </Card>
      <Card title="Activity">
        {data.recent.length === 0 && <p className="text-stone-600 dark:text-stone-400">Nothing has happened yet.</p>}
        <ul className="divide-y divide-stone-200 dark:divide-stone-700">
          {data.recent.map((t) => (
            <li key={t.id} className="flex flex-wrap items-baseline justify-between gap-x-4 py-2">
              <Link to={`/transactions/${t.id}`}>{t.reference ?? t.kind}</Link>
              <span className="text-sm text-stone-600 dark:text-stone-400">{t.steps[0] && time(t.steps[0].time)}</span>
              <span><Amount value={t.amount} /> <State state={t.state} /></span>
            </li>
          ))}
        </ul>
      </Card>
    </div>
  );
}

export function State({ state }: { state: bank.Transaction["state"] }) {
  const look = {
    pending: "border border-dashed border-stone-500", accepted: "bg-emerald-100 text-emerald-900 dark:bg-emerald-900 dark:text-emerald-100",
    rejected: "bg-red-100 text-red-900 dark:bg-red-900 dark:text-red-100", reversed: "bg-amber-100 text-amber-900 dark:bg-amber-900 dark:text-amber-100",
  }[state];
  return <span className={`rounded-full px-2 py-0.5 text-xs ${look}`}>{state}</span>;
}

function OpenAccount() {
  const queries = useQueryClient();
  const [currency, setCurrency] = useState("GBP");
  const [nickname, setNickname] = useState("");
  const [key, setKey] = useState(() => crypto.randomUUID());
  const open = useMutation({
    mutationFn: () => bank.openAccount(currency, nickname, key),
    onSuccess: () => {
      setKey(crypto.randomUUID());
      setNickname("");
      queries.invalidateQueries({ queryKey: ["init"] });
    },
  });
  return (
    <form
      className="mt-4 grid items-end gap-3 sm:grid-cols-[1fr_7rem_auto]"
      onSubmit={(event) => {
        event.preventDefault();
        if (!open.isPending) open.mutate();
      }}
    >
      <Field label="Name of the new account" value={nickname} maxLength={60} onChange={(e) => setNickname(e.target.value)} />
      <Choice label="Currency" value={currency} onChange={(e) => setCurrency(e.target.value)}>
        {CURRENCIES.map((c) => <option key={c}>{c}</option>)}
      </Choice>
      <Button type="submit" quiet disabled={open.isPending}>Open account</Button>
      {open.error && <Alert>{open.error.message}</Alert>}
    </form>
  );
}
