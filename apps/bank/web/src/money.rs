//! Amounts from outside: `{"minor": "1050", "currency": "GBP"}`, nothing else.

use serde_json::{Value, json};

use crate::problem::Problem;

/// ISO 4217 codes that the bank deals in.
const CURRENCIES: [&str; 8] = ["GBP", "EUR", "USD", "CHF", "JPY", "SEK", "NOK", "DKK"];
/// A thousand million million: sums of many still fit 64 bits.
const MINOR_MAX: i64 = 1_000_000_000_000_000;

pub(crate) fn currency(value: Option<&Value>) -> Result<&str, Problem> {
    let Some(value) = value else { return Err(Problem::form("missing_field", "`currency` is missing")) };
    let known = value.as_str().filter(|text| CURRENCIES.contains(text));
    known.ok_or_else(|| Problem::form("invalid_currency", "this bank does not deal in that currency"))
}

/// A checked positive amount, in the form the services take.
pub(crate) fn amount(value: Option<&Value>) -> Result<Value, Problem> {
    let Some(value) = value else { return Err(Problem::form("missing_field", "`amount` is missing")) };
    let malformed = || {
        Problem::form(
            "invalid_amount",
            "an amount is {\"minor\": \"1050\", \"currency\": \"GBP\"}: whole minor units as a string",
        )
    };
    let members = value.as_object().ok_or_else(malformed)?;
    let currency = currency(members.get("currency"))?;
    let minor = members.get("minor").and_then(Value::as_str).ok_or_else(malformed)?;
    let (sign, digits) = match minor.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, minor),
    };
    let plain = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if !plain {
        return Err(malformed());
    }
    match digits.parse::<i64>() {
        Ok(0) => Err(Problem::form("zero_amount", "an amount of nothing moves nothing")),
        Ok(_) if sign < 0 => {
            Err(Problem::form("negative_amount", "an amount is positive; swap the accounts instead"))
        }
        Ok(minor) if minor <= MINOR_MAX => Ok(json!({ "minor": minor.to_string(), "currency": currency })),
        _ => Err(Problem::form("amount_too_large", "no transaction is that large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_bad_amount_has_its_own_code() {
        for (minor, currency, code) in [
            (json!("0"), "GBP", "zero_amount"),
            (json!("-5"), "GBP", "negative_amount"),
            (json!("1.5"), "GBP", "invalid_amount"),
            (json!("01"), "GBP", "invalid_amount"),
            (json!(5), "GBP", "invalid_amount"),
            (json!(""), "GBP", "invalid_amount"),
            (json!("99999999999999999999999"), "GBP", "amount_too_large"),
            (json!("1000000000000001"), "GBP", "amount_too_large"),
            (json!("5"), "XXX", "invalid_currency"),
        ] {
            let value = json!({ "minor": minor, "currency": currency });
            assert_eq!(amount(Some(&value)).unwrap_err().code, code, "{value}");
        }
        assert_eq!(amount(None).unwrap_err().code, "missing_field");
        let good = json!({ "minor": "1050", "currency": "GBP" });
        assert_eq!(amount(Some(&good)).unwrap(), good);
    }
}
