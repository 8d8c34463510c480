import { describe, expect, it } from "vitest";
import { format, parse } from "./money";

describe("money", () => {
  it("is shown with sign, groups and decimals", () => {
    expect(format({ minor: "105020", currency: "GBP" })).toBe("£1,050.20");
    expect(format({ minor: "-5", currency: "GBP" })).toBe("−£0.05");
    expect(format({ minor: "1234567", currency: "JPY" })).toBe("¥1,234,567");
    expect(format({ minor: "900719925474099399", currency: "SEK" })).toBe("9,007,199,254,740,993.99 SEK");
  });
  it("is read without floats", () => {
    expect(parse("12.5", "GBP")).toEqual({ amount: { minor: "1250", currency: "GBP" } });
    expect(parse("£1,000", "GBP")).toEqual({ amount: { minor: "100000", currency: "GBP" } });
    expect(parse("0.29", "GBP")).toEqual({ amount: { minor: "29", currency: "GBP" } });
  });
  it("takes a comma between thousands only, so that 1,50 is not read as 150", () => {
    expect(parse("12,345,678.90", "EUR")).toEqual({ amount: { minor: "1234567890", currency: "EUR" } });
    for (const text of ["1,50", "1,5", "1,2345", "1234,567", ",5", "1,", "1,,000", "1.000,00"]) {
      expect(parse(text, "EUR")).toEqual({ error: "Enter an amount like 12.50" });
    }
  });
  it("says what is wrong with an amount in the words of its currency", () => {
    expect(parse("many", "JPY")).toEqual({ error: "Enter an amount like 1250" });
    expect(parse("99999999999999999999", "GBP")).toEqual({ error: "More than can be moved at once" });
    expect(parse("10,000,000,000,000.00", "GBP")).toEqual({ amount: { minor: "1000000000000000", currency: "GBP" } });
    expect(parse("10,000,000,000,000.01", "GBP")).toHaveProperty("error");
  });
  it("refuses what is no amount", () => {
    for (const text of ["", "0", "0.00", "-5", "1.234", "1e5", "abc", "1 2"]) {
      expect(parse(text, "GBP")).toHaveProperty("error");
    }
    expect(parse("1.5", "JPY")).toHaveProperty("error");
  });
});
