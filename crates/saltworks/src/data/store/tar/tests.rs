use super::*;
use crate::fuzz;

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        let end = std::io::ErrorKind::UnexpectedEof;
        let start = usize::try_from(offset).map_err(|_| end)?;
        buffer.copy_from_slice(self.get(start..start + buffer.len()).ok_or(end)?);
        Ok(())
    }
}

/// A member of this kind and its padded bytes.
pub(in crate::data) fn member(name: &str, kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let mut member = signed(header).to_vec();
    member.extend(bytes);
    member.resize(member.len().next_multiple_of(BLOCK), 0);
    member
}

fn signed(mut header: [u8; BLOCK]) -> [u8; BLOCK] {
    let sum = checksum(&header);
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// The member with the checksum of its changed header.
pub(in crate::data) fn signed_again(member: &[u8]) -> Vec<u8> {
    let (header, rest) = member.split_at(BLOCK);
    // split_at gave BLOCK bytes.
    [&signed(header.try_into().unwrap())[..], rest].concat()
}

/// The member as a link to this path.
pub(in crate::data) fn linked(member: &[u8], target: &str) -> Vec<u8> {
    let mut member = member.to_vec();
    member[157..157 + target.len()].copy_from_slice(target.as_bytes());
    signed_again(&member)
}

/// An archive of these members, with its end marker.
pub(in crate::data) fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 2 * BLOCK]].concat()
}

fn list(archive: &Vec<u8>) -> Result<Vec<Member>> {
    let mut members = Members::new(archive, Path::new("a.tar"), archive.len() as u64);
    let mut all = Vec::new();
    while let Some(member) = members.next_file()? {
        all.push(member);
    }
    Ok(all)
}

fn refusal(archive: &Vec<u8>) -> String {
    list(archive).unwrap_err().to_string()
}

fn every_kind() -> Vec<u8> {
    let long = "long/".repeat(40) + "name.png";
    let pax = |text: &str| format!("{} {text}\n", text.len() + 4);
    let mut prefixed = [0; BLOCK];
    prefixed.copy_from_slice(&member("c.png", b'0', b"")[..BLOCK]);
    prefixed[345..351].copy_from_slice(b"prefix");
    let mut large = [0; BLOCK];
    large.copy_from_slice(&member("d.png", b'0', b"")[..BLOCK]);
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1]);
    archive(&[
        member("folder/", b'5', b""),
        member("a.png", b'0', b"one"),
        member("././@LongLink", b'L', long.as_bytes()),
        member("cut", b'0', b"two"),
        member("PaxHeader", b'x', pax("path=b/\u{e9}.png").as_bytes()),
        member("b", b'0', b"three"),
        member("link", b'2', b""),
        signed(prefixed).to_vec(),
        signed(large).to_vec(),
        vec![7; 1024],
    ])
}

#[test]
fn names_come_from_every_kind_of_header() {
    let archive = every_kind();
    let members = list(&archive).unwrap();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let long = "long/".repeat(40) + "name.png";
    assert_eq!(names, ["a.png", &long, "b/\u{e9}.png", "prefix/c.png", "d.png"]);
    let bytes = |at: usize| {
        let Member { offset, size, .. } = members[at];
        &archive[offset as usize..(offset + size) as usize]
    };
    assert_eq!(
        (bytes(0), bytes(1), bytes(2), bytes(3)),
        (&b"one"[..], &b"two"[..], &b"three"[..], &b""[..])
    );
    assert_eq!(bytes(4), [7; 513]);
}

/// A size that octal digits cannot hold is in the pax header alone (POSIX.1-2017, pax, "size").
#[test]
fn a_size_in_a_pax_header_is_that_of_the_member_behind_it() {
    let mut bytes = b"three".to_vec();
    bytes.resize(BLOCK, 0);
    let all = archive(&[
        member("PaxHeader", b'x', b"10 size=5\n"),
        member("a.png", b'0', b""),
        bytes,
        member("b.png", b'0', b"b"),
    ]);
    let found = list(&all).unwrap();
    let bytes = found.iter().map(|member| &all[member.offset as usize..][..member.size as usize]);
    assert_eq!(bytes.collect::<Vec<_>>(), [&b"three"[..], b"b"]);
    assert_eq!([found[0].name.as_str(), &found[1].name], ["a.png", "b.png"]);
}

#[test]
fn links_name_their_target_from_the_root_or_from_their_folder() {
    let long = "x".repeat(120) + ".png";
    let all = archive(&[
        linked(&member("a/b/hard.png", b'1', b""), "a/c.png"),
        linked(&member("a/b/soft.png", b'2', b""), "../c.png"),
        member("././@LongLink", b'K', long.as_bytes()),
        linked(&member("a/long.png", b'2', b""), "cut"),
        linked(&member("up.png", b'2', b""), "../../up.png"),
    ]);
    let mut members = Members::new(&all, Path::new("a.tar"), all.len() as u64);
    assert_eq!(members.next_file().unwrap(), None);
    let (links, end) = members.finish();
    let targets: Vec<_> = links.iter().map(|link| link.target.as_str()).collect();
    assert_eq!(targets, ["a/c.png", "a/c.png", &format!("a/{long}"), "../../up.png"]);
    assert_eq!(end, ArchiveEnd::Marked);
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let whole = archive(&[member("a.png", b'0', &[1; 700]), member("b.png", b'0', b"b")]);
    let before_the_end = whole.len() - 2 * BLOCK;
    let first = member("a.png", b'0', &[1; 700]).len();
    for kept in (1..before_the_end).step_by(97).chain([before_the_end + 511]) {
        let message = refusal(&whole[..kept].to_vec());
        assert!(message.contains("cut off") || kept < BLOCK, "{kept}: {message}");
    }
    for (kept, members) in [(first, 1), (before_the_end, 2), (before_the_end + BLOCK, 2)] {
        assert_eq!(list(&whole[..kept].to_vec()).unwrap().len(), members);
    }
    assert!(refusal(&Vec::new()).contains("shorter than a tar header"));
}

#[test]
fn what_is_not_a_plain_archive_is_refused_with_advice() {
    let mut damaged = archive(&[member("a.png", b'0', &[1; 700]), member("b.png", b'0', b"b")]);
    damaged[1536] ^= 1;
    assert!(refusal(&damaged).starts_with("a.tar: at byte 1536: has a damaged header"));
    assert!(refusal(&vec![b'x'; 600]).contains("is not a tar archive"));
    for (start, advice) in
        [(&[0x1F, 0x8B][..], "`gzip -d`"), (&[0x28, 0xB5, 0x2F, 0xFD], "`zstd -d`")]
    {
        let packed = [start, &[9; 600]].concat();
        assert!(refusal(&packed).contains(advice), "{}", refusal(&packed));
    }
    let sparse = archive(&[member("a", b'S', b"")]);
    assert!(refusal(&sparse).contains("sparse"));
}

#[test]
fn no_bytes_make_the_reader_panic_or_run_on() {
    let seed = every_kind();
    fuzz::mutate("tar", &seed, |bytes| {
        let mut bytes = bytes.to_vec();
        // The checksums are corrected. Otherwise nearly all changes would be refused at the first
        // header.
        for header in bytes.chunks_exact_mut(BLOCK) {
            if &header[257..262] == b"ustar" {
                // A chunk of BLOCK bytes.
                let block: [u8; BLOCK] = (&*header).try_into().unwrap();
                header.copy_from_slice(&signed(block));
            }
        }
        let members = list(&bytes).unwrap_or_default();
        assert!(members.len() <= bytes.len() / BLOCK);
        assert!(members.iter().all(|member| member.offset + member.size <= bytes.len() as u64));
    });
}
