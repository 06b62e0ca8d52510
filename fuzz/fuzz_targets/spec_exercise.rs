//! What the target of workload specs does with its input; the stable replay of the corpus includes this file too.

use coffer_machine::spec_disk::SpecDisk;
use coffer_spec::{Act, Document, MeasuredCommandLine, workload_argument};
use coffer_verifier::abi::WorkloadDigest;

/// The start of a spec disk, a document or a kernel command line, as a guest reads each. Gives how many readings there were that say
/// something.
pub fn spec(data: &[u8]) -> usize {
    let of_disk = SpecDisk::parse(data).map_or(0, |disk| document(disk.document));
    let line = core::str::from_utf8(data).ok().and_then(|text| MeasuredCommandLine::parse(text).ok());
    if let Some(line) = line {
        let again = MeasuredCommandLine::parse(&workload_argument(&line.workload, line.tee));
        assert_eq!(again, Ok(line), "our own words");
    }
    of_disk + document(data) + usize::from(line.is_some())
}

/// What is taken is the bytes it came from, says the same when it is written anew, and gives the host nothing that is never its own.
fn document(data: &[u8]) -> usize {
    let Ok(read) = Document::parse(data.to_vec()) else { return 0 };
    assert_eq!((read.bytes(), read.digest()), (data, WorkloadDigest::of(data)));
    let spec = read.spec();
    assert!(![Act::Inject, Act::Unseal].into_iter().any(|act| spec.host_may.allows(act)));
    let again = Document::write(spec).expect("what was taken can be written");
    assert_eq!(again.spec(), spec);
    1
}
