//! What AWS asks, in us-east-1, on demand, in November 2026; and the page that says so.

/// US dollars for a million write units: DynamoDB, standard table class.
/// <https://aws.amazon.com/dynamodb/pricing/on-demand/>
pub(super) const WRITE_UNITS_MILLION: f64 = 0.625;

/// US dollars for a million read units: the same page.
pub(super) const READ_UNITS_MILLION: f64 = 0.125;

/// US dollars for a thousand PUTs: S3 Standard. <https://aws.amazon.com/s3/pricing/> (deletions are free)
pub(super) const S3_PUTS_THOUSAND: f64 = 0.005;

/// US dollars for a thousand GETs: the same page.
pub(super) const S3_GETS_THOUSAND: f64 = 0.0004;

/// US dollars for a million events of which each batch consumes so many units.
pub(super) fn of_writes(units_a_batch: f64, batch: usize) -> f64 {
    units_a_batch / batch as f64 * WRITE_UNITS_MILLION
}

/// US dollars for a million events of which each batch consumes so many units.
pub(super) fn of_reads(units_a_batch: f64, batch: usize) -> f64 {
    units_a_batch / batch as f64 * READ_UNITS_MILLION
}

/// US dollars for a million events, an object for each batch: written once, read once, deleted for nothing.
pub(super) fn of_objects(batch: usize) -> f64 {
    let thousands = 1e6 / batch as f64 / 1e3;
    thousands * (S3_PUTS_THOUSAND + S3_GETS_THOUSAND)
}
