// The tracker: its steps are the real events of the transaction.
import { useQuery } from "@tanstack/react-query";
import * as bank from "../api/bank";
import { words } from "../api/client";
import { Amount, Card, Link, time } from "../ui";
import { State } from "./Accounts";

export function TransactionPage({ id }: { id: string }) {
  const query = useQuery({ queryKey: ["transaction", id], queryFn: () => bank.transaction(id) });
  const t = query.data;
  return (
    <div className="space-y-6">
      <p><Link to="/">← Accounts</Link></p>
      {query.error && <Card>{query.error.message}</Card>}
      {t && (
        <Card title={t.reference ?? t.kind}>
          <p className="text-2xl"><Amount value={t.amount} /> <State state={t.state} /></p>
          <p className="text-stone-600 dark:text-stone-400">from {t.from} to {t.to}</p>
          {t.reason && <p className="mt-2 text-red-700 dark:text-red-400">{words(t.reason)}</p>}
          <ol aria-live="polite" className="mt-6 space-y-3 border-l-2 border-emerald-800 pl-4 dark:border-emerald-500">
            {t.steps.map((step) => (
              <li key={step.position} data-testid="step">
                <span className="font-medium">{step.event}</span>
                <span className="block text-sm text-stone-600 dark:text-stone-400">{time(step.time)} · event {step.position}</span>
              </li>
            ))}
            {t.state === "pending" && <li className="italic">waiting for the accounts…</li>}
          </ol>
          <p className="mt-6 text-sm break-all text-stone-600 dark:text-stone-400">correlation {t.correlationid}</p>
        </Card>
      )}
    </div>
  );
}
