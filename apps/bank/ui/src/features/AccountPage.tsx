import { useQuery } from "@tanstack/react-query";
import * as bank from "../api/bank";
import { Amount, Card, Link, time } from "../ui";
import { Move } from "./Move";

export function AccountPage({ data, number }: { data: bank.Init; number: string }) {
  const account = data.accounts.find((a) => a.number === number);
  const statement = useQuery({ queryKey: ["statement", number], queryFn: () => bank.statement(number), enabled: Boolean(account) });
  if (!account) return <Card>You have no account {number}. <Link to="/">Back to your accounts</Link></Card>;
  return (
    <div className="space-y-6">
      <p><Link to="/">← Accounts</Link></p>
      <header className="flex flex-wrap items-baseline justify-between gap-4">
        <h1 className="text-2xl font-semibold">{account.nickname ?? `${account.currency} account`} <span className="text-base font-normal text-stone-600 dark:text-stone-400">{number}</span></h1>
        <p className="text-right"><span className="text-2xl" data-testid="balance"><Amount value={account.balance} /></span>
          <span className="block text-sm text-stone-600 dark:text-stone-400">available <Amount value={account.available} /></span></p>
      </header>
      <Move account={account} />
      <Card title="Statement">
        {statement.error && <p>{statement.error.message}</p>}
        {statement.data && (
          <div className="overflow-x-auto">
            <table className="w-full text-left">
              <thead className="text-sm text-stone-600 dark:text-stone-400">
                <tr><th className="hidden py-1 pr-4 sm:table-cell">Time</th><th className="pr-4">Description</th><th className="pr-4 text-right">Amount</th><th className="text-right">Balance</th></tr>
              </thead>
              <tbody className="divide-y divide-stone-200 dark:divide-stone-700">
                <tr><td className="hidden sm:table-cell" /><td className="py-2 italic">Opening balance</td><td /><td className="text-right"><Amount value={statement.data.opening} /></td></tr>
                {statement.data.lines.map((line) => (
                  <tr key={line.position} data-testid="line">
                    <td className="hidden py-2 pr-4 text-sm whitespace-nowrap sm:table-cell">{time(line.time)}</td>
                    <td className="py-2 pr-4 wrap-anywhere">{line.description}
                      <span className="block text-xs text-stone-600 sm:hidden dark:text-stone-400">{time(line.time)}</span></td>
                    <td className="pr-4 text-right"><Amount value={line.amount} signed /></td>
                    <td className="text-right"><Amount value={line.balance} /></td>
                  </tr>
                ))}
                <tr className="font-medium"><td className="hidden sm:table-cell" /><td className="py-2">Closing balance</td><td /><td className="text-right" data-testid="closing"><Amount value={statement.data.closing} /></td></tr>
              </tbody>
            </table>
          </div>
        )}
      </Card>
    </div>
  );
}
