// The few building blocks that every screen uses.
import type { ButtonHTMLAttributes, InputHTMLAttributes, MouseEvent, ReactNode } from "react";
import { useId } from "react";
import { type Money, format } from "./money";
import { go } from "./route";

export function Button({ quiet, ...rest }: ButtonHTMLAttributes<HTMLButtonElement> & { quiet?: boolean }) {
  const look = quiet
    ? "border border-stone-300 dark:border-stone-600 hover:bg-stone-100 dark:hover:bg-stone-800"
    : "bg-emerald-800 text-white hover:bg-emerald-700 disabled:bg-stone-400 dark:disabled:bg-stone-600";
  return <button className={`rounded-lg px-4 py-2 font-medium ${look}`} {...rest} />;
}

export function Field({ label, error, ...rest }: InputHTMLAttributes<HTMLInputElement> & { label: string; error?: string }) {
  const id = useId();
  return (
    <div className="space-y-1">
      <label htmlFor={id} className="block text-sm font-medium">{label}</label>
      <input
        id={id}
        aria-invalid={Boolean(error)}
        aria-describedby={error ? `${id}-error` : undefined}
        className="w-full rounded-lg border border-stone-300 bg-white px-3 py-2 aria-[invalid=true]:border-red-600 dark:border-stone-600 dark:bg-stone-900"
        {...rest}
      />
      {error && <p id={`${id}-error`} className="text-sm text-red-700 dark:text-red-400">{error}</p>}
    </div>
  );
}

export function Choice({ label, children, ...rest }: { label: string; children: ReactNode; value: string; onChange: (e: React.ChangeEvent<HTMLSelectElement>) => void }) {
  const id = useId();
  return (
    <div className="space-y-1">
      <label htmlFor={id} className="block text-sm font-medium">{label}</label>
      <select id={id} className="h-10.5 w-full rounded-lg border border-stone-300 bg-white px-3 py-2 dark:border-stone-600 dark:bg-stone-900" {...rest}>
        {children}
      </select>
    </div>
  );
}

export function Card({ children, title }: { children: ReactNode; title?: string }) {
  return (
    <section className="rounded-2xl border border-stone-200 bg-white p-5 shadow-sm dark:border-stone-700 dark:bg-stone-900">
      {title && <h2 className="mb-4 text-lg font-semibold">{title}</h2>}
      {children}
    </section>
  );
}

export function Amount({ value, signed }: { value: Money; signed?: boolean }) {
  const negative = value.minor.startsWith("-");
  const colour = signed ? (negative ? "" : "text-emerald-700 dark:text-emerald-400") : "";
  return <span className={`whitespace-nowrap tabular-nums ${colour}`}>{signed && !negative ? "+" : ""}{format(value)}</span>;
}

export function Link({ to, children, className }: { to: string; children: ReactNode; className?: string }) {
  const follow = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go(to);
  };
  return <a href={to} onClick={follow} className={className ?? "text-emerald-800 underline dark:text-emerald-400"}>{children}</a>;
}

export const Alert = ({ children }: { children: ReactNode }) => (
  <p role="alert" className="rounded-lg bg-red-50 px-3 py-2 text-red-800 dark:bg-red-950 dark:text-red-200">{children}</p>
);

export const time = (text: string) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
