//! Random numbers of dependencies come through `getrandom`, which they look up
//! among the symbols of the running program: ours must be there to be found.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo::rerun-if-changed=build.rs");
}
