//! Scripts of any text: loaded or refused, in the time and the memory that they
//! are given.

use std::sync::Arc;
use std::time::Duration;

use daybook_log::fuzz::Fuzz;

use crate::Limits;
use crate::bundle::Bundle;
use crate::machine::Machine;

const LIMITS: Limits =
    Limits { memory_bytes: 16 << 20, compute: Duration::from_millis(50), wall: Duration::from_secs(1) };

#[test]
fn a_script_may_be_any_bytes() {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let bytecode = mlua::chunk::Compiler::new().compile("return 1").unwrap();
    let corpus = Fuzz::new("fuzz scripts").folder(format!("{tree}/apps/bank/services"));
    let corpus = corpus.folder(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/scripts"));
    corpus.input(bytecode.clone()).run(400, |input| {
        let text = str::from_utf8(input).map_err(|_| "it is not UTF-8")?;
        let bundle = Arc::new(Bundle::of_text("script.lua", text));
        Machine::load(&bundle, LIMITS).map(drop).map_err(|error| error.to_string())
    });
    // As text, because that is all that gets this far.
    let refused = Bundle::of_text("script.lua", &String::from_utf8_lossy(&bytecode));
    assert!(Machine::load(&Arc::new(refused), LIMITS).is_err());
}
