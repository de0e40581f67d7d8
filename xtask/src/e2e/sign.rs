//! Signature Version 4, for the few calls that the driver makes to the emulator itself.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use hmac::{Hmac, KeyInit as _, Mac as _};
use quipu_core::clock::{Clock as _, SystemClock};
use quipu_core::ids::hex;
use sha2::{Digest as _, Sha256};

/// The emulator takes any key that is no role's for the account's owner.
pub(super) const ACCESS_KEY: &str = "test";
pub(super) const SECRET_KEY: &str = "test";

/// The headers that sign a request without a query: their names and values.
pub(super) fn headers(
    service: &str,
    method: &str,
    host: &str,
    path: &str,
    body: &[u8],
) -> [(&'static str, String); 2] {
    // 2026-11-22T03:05:13.000000Z becomes 20261122T030513Z.
    let now = SystemClock.now().to_string();
    let seconds: String = now.chars().filter(|c| !matches!(c, '-' | ':')).take(15).collect();
    let time = format!("{seconds}Z");
    let (date, region) = (&time[..8], super::REGION);
    let request = format!(
        "{method}\n{path}\n\nhost:{host}\nx-amz-date:{time}\n\nhost;x-amz-date\n{}",
        hex(&Sha256::digest(body))
    );
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let mut key = format!("AWS4{SECRET_KEY}").into_bytes();
    for part in [date, region, service, "aws4_request", &to_sign] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
        hex(&key)
    );
    [("x-amz-date", time), ("authorization", authorization)]
}
