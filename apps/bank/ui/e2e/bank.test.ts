// Two people in one real browser, against a real `daybook demo`.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Browser, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";

const binary = process.env.DAYBOOK_BIN ?? "../../../target/release/daybook";
const shots = "test-results";
let demo: ChildProcess;
let data: string;
let bank: string;
let bus: string;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(shots, { recursive: true });
  data = mkdtempSync(join(tmpdir(), "daybook-e2e-"));
  demo = spawn(binary, ["demo", "--data", data, "--listen", "127.0.0.1:0", "--bank-listen", "127.0.0.1:0"]);
  const card = await new Promise<string>((done, fail) => {
    let text = "";
    demo.stdout?.on("data", (chunk) => {
      text += chunk;
      if (text.includes("Ctrl-C")) done(text);
    });
    demo.on("exit", (code) => fail(new Error(`the demo ended with ${code}`)));
  });
  bank = /bank\s+(http:\S+)/.exec(card)?.[1] ?? "";
  bus = /bus\s+(http:\S+)/.exec(card)?.[1] ?? "";
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

afterAll(async () => {
  await browser?.close();
  demo?.removeAllListeners("exit");
  const ended = new Promise((done) => demo?.once("exit", done));
  demo?.kill("SIGTERM");
  await ended;
  rmSync(data, { recursive: true, force: true });
});

async function person(name: string): Promise<{ page: Page; number: string }> {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 } });
  const page = await context.newPage();
  await page.goto(bank);
  await page.getByRole("button", { name: "Register" }).click();
  await page.getByLabel("User name").fill(name);
  await page.getByLabel("Password").fill("correct horse battery");
  await page.getByRole("button", { name: "Register" }).click();
  await page.getByLabel("Name of the new account").fill("Everyday");
  await page.getByRole("button", { name: "Open account" }).click();
  const number = (await page.getByTestId("number").textContent()) ?? "";
  expect(number).toMatch(/^\d{10}$/);
  await page.getByText("live", { exact: true }).waitFor();
  return { page, number };
}

const log = (...args: string[]) =>
  execFileSync(binary, [...args, "--bus", bus], { encoding: "utf8" }).trim().split("\n").map((line) => JSON.parse(line));

it("moves money from one page to the other without reload, once", async () => {
  const ada = await person("ada");
  const grace = await person("grace");
  const balance = (who: { page: Page }) => who.page.getByTestId("balance").textContent();

  await ada.page.getByTestId("number").click();
  await ada.page.getByLabel("deposit").check();
  await ada.page.getByLabel("Amount in GBP").fill("100");
  await ada.page.getByRole("button", { name: "Pay in" }).click();
  await ada.page.getByText("TransactionAccepted").waitFor();
  await ada.page.screenshot({ path: `${shots}/tracker.png` });
  await ada.page.getByRole("link", { name: "← Accounts" }).click();
  await expect.poll(() => balance(ada)).toBe("£100.00");

  await ada.page.getByTestId("number").click();
  await ada.page.getByLabel("To account").fill(grace.number);
  await ada.page.getByLabel("Amount in GBP").fill("999");
  await ada.page.getByText("More than is available").waitFor();
  await ada.page.getByLabel("Amount in GBP").fill("25.50");
  await ada.page.getByLabel("Reference").fill("Rent for May");
  // A double click is one intent.
  await ada.page.getByRole("button", { name: "Send" }).dblclick();
  // Grace's page was not touched: it changes by itself, within a second.
  await expect.poll(() => balance(grace), { timeout: 1000, interval: 20 }).toBe("£25.50");
  await grace.page.screenshot({ path: `${shots}/receiver.png` });

  // A reload in the middle finds the transfer again.
  await ada.page.waitForURL(/\/transactions\//);
  await ada.page.reload();
  await ada.page.getByText("TransactionAccepted").waitFor();

  for (const [who, expected] of [[ada, ["100.00", "25.50"]], [grace, ["25.50"]]] as const) {
    await who.page.goto(`${bank}/accounts/${who.number}`);
    await who.page.getByTestId("closing").waitFor();
    const lines = await who.page.getByTestId("line").allTextContents();
    expect(lines.length).toBe(expected.length);
    const legs = log("read", "--subject", `account/${who.number}`).filter((e) => e.type !== "AccountOpened");
    expect(legs.length).toBe(lines.length);
    legs.forEach((leg, i) => {
      expect(BigInt(leg.data.amount.minor)).toBe(BigInt((expected[i] ?? "").replace(".", "")));
      expect(lines[i]).toContain(expected[i]);
    });
    const sum = legs.reduce((sum, leg) => sum + (leg.type === "Credited" ? 1n : -1n) * BigInt(leg.data.amount.minor), 0n);
    const closing = (await who.page.getByTestId("closing").textContent()) ?? "";
    expect(closing.replace(/[£.]/g, "")).toBe(sum.toString());
  }
  await ada.page.screenshot({ path: `${shots}/statement.png`, fullPage: true });
  await ada.page.setViewportSize({ width: 390, height: 844 });
  // On a phone too a statement shows amount and balance, without scrolling.
  const statement = ada.page.locator("table").locator("..");
  expect(await statement.evaluate((box) => box.scrollWidth - box.clientWidth)).toBe(0);
  await ada.page.emulateMedia({ colorScheme: "dark" });
  await ada.page.screenshot({ path: `${shots}/phone-dark.png`, fullPage: true });

  const transfers = log("read", "--type", "TransactionPending").filter((e) => e.data.kind === "transfer");
  expect(transfers.length).toBe(1);
  const trace = log("trace", transfers[0].correlationid).map((e) => e.type);
  expect(trace).toEqual(["TransactionPending", "Debited", "Credited", "TransactionAccepted"]);
});

it("shows nothing of a person who signed out in another window", async () => {
  const { page, number } = await person("joan");
  await page.goto(`${bank}/accounts/${number}`);
  await page.getByTestId("closing").waitFor();
  await page.getByLabel("deposit").check();
  await page.getByLabel("Amount in GBP").fill("1,50");
  await page.getByRole("button", { name: "Pay in" }).click();
  await page.getByText("Enter an amount like 12.50").waitFor();

  const other = await page.context().newPage();
  await other.goto(bank);
  await other.getByRole("button", { name: "Sign out" }).click();
  await other.getByRole("button", { name: "Sign in" }).waitFor();
  // Not touched: its socket ended with the session.
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  expect(await page.getByText(number).count()).toBe(0);
  expect(log("read", "--subject", `account/${number}`).length).toBe(1);
});
