//! `crypto`: passwords and tokens, in routes only, since their results are random.

use argon2::password_hash::{PasswordHash, SaltString};
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use base64::Engine as _;
use mlua::Lua;
use tokio::sync::Semaphore;

use crate::machine;

/// Argon2id takes 19 MiB each: more at once would be an attack on our memory.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

pub(super) fn install(lua: &Lua) -> mlua::Result<()> {
    let crypto = lua.create_table()?;
    crypto.set(
        "hash_password",
        lua.create_async_function(async |_, text: String| {
            machine::only_in_routes("crypto.hash_password")?;
            off_thread(move || {
                let salt =
                    SaltString::encode_b64(uuid::Uuid::new_v4().as_bytes()).map_err(|e| e.to_string())?;
                let hash = Argon2::default().hash_password(text.as_bytes(), &salt);
                hash.map(|hash| hash.to_string()).map_err(|e| e.to_string())
            })
            .await
        })?,
    )?;
    crypto.set(
        "verify_password",
        lua.create_async_function(async |_, (text, hash): (String, String)| {
            machine::only_in_routes("crypto.verify_password")?;
            off_thread(move || {
                let hash = PasswordHash::new(&hash).map_err(|e| e.to_string())?;
                Ok(Argon2::default().verify_password(text.as_bytes(), &hash).is_ok())
            })
            .await
        })?,
    )?;
    crypto.set(
        "token",
        lua.create_function(|_, ()| {
            machine::only_in_routes("crypto.token")?;
            let bytes = [*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()].concat();
            Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
        })?,
    )?;
    lua.globals().set("crypto", crypto)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> mlua::Result<T> {
    let _permit = AT_ONCE.acquire().await.map_err(mlua::Error::external)?;
    let result = tokio::task::spawn_blocking(work).await.map_err(mlua::Error::external)?;
    result.map_err(mlua::Error::runtime)
}
