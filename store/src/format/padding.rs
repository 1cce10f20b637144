//! Padmé: the rule by which the length of a published object is rounded up, so that it says little about its content.
//!
//! A length `L` keeps only the leading `floor(log2(floor(log2 L))) + 1` bits after its first, and is rounded up to that
//! precision: at most 12 % is added to a tiny object, 3 % to one of 16 MiB, and the number of distinct lengths grows with
//! `log log L` bits only (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs").

/// The padded form of `length`: never smaller, and the same when applied twice.
///
/// Lengths above 2^62 are returned as they are; no object comes near.
pub fn padded_length(length: u64) -> u64 {
    if !(2..=1 << 62).contains(&length) {
        return length;
    }
    let exponent = length.ilog2();
    let kept_bits = exponent.checked_ilog2().map_or(0, |bits| bits + 1);
    let mask = (1u64 << (exponent - kept_bits.min(exponent))) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_never_shrinks_adds_at_most_an_eighth_and_is_stable() {
        for length in (0..4096).chain((12..40).flat_map(|bits| [(1u64 << bits) - 1, (1 << bits) + 1, 5 << (bits - 2)]))
        {
            let padded = padded_length(length);
            assert!(padded >= length, "{length} became {padded}");
            assert!(padded - length <= length / 8, "{length} became {padded}");
            assert_eq!(padded_length(padded), padded, "padding {length} twice");
        }
    }

    #[test]
    fn lengths_of_one_class_look_alike() {
        assert_eq!(padded_length(16_777_217), padded_length(17_000_000));
        assert_eq!(padded_length(9), 10);
        assert_eq!(padded_length(u64::MAX), u64::MAX);
    }
}
