//! Tiles: their names, and what grows out of a log in whatever steps.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::merkle::Frontier;
use super::super::tiles::{Level, RightEdge, Tile, TileWriter, all_tiles, right_edge};
use super::reference::{entries, leaves, mth};
use crate::limits;

type Files = BTreeMap<Tile, Bytes>;

/// Grows a log from one size to another, out of the files that it has.
fn grow(files: &mut Files, events: &[[u8; 32]], from: u64, to: u64) -> Frontier {
    let mut edge = RightEdge::default();
    for tile in right_edge(from) {
        let hashes = tile.decode(&files[&tile]).unwrap();
        match tile.level {
            Level::Entries => edge.entries = hashes,
            Level::Hashes(level) => {
                edge.hashes.resize(usize::from(level) + 1, Vec::new());
                edge.hashes[usize::from(level)] = hashes;
            }
        }
    }
    let mut writer = TileWriter::resume(from, edge).unwrap();
    events[from as usize..to as usize].iter().for_each(|event| writer.push(event));
    assert_eq!(writer.size(), to);
    let (new, frontier) = writer.finish();
    for (tile, bytes) in new {
        assert!(files.insert(tile, bytes).is_none(), "{tile} twice");
    }
    frontier
}

/// The files of a log of that size, by the definition of c2sp.org/tlog-tiles.
fn expected(size: u64) -> Files {
    let (entries, leaves) = (entries(size), leaves(size));
    let hash = |level: u8, at: u64| {
        let unit = 256u64.pow(u32::from(level));
        mth(&leaves[(at * unit) as usize..((at + 1) * unit) as usize])
    };
    all_tiles(size)
        .map(|tile| {
            let places = (0..u64::from(tile.width)).map(|at| tile.index * 256 + at);
            let bytes: Vec<u8> = match tile.level {
                Level::Entries => {
                    places.flat_map(|at| [&[0, 32][..], &entries[at as usize]].concat()).collect()
                }
                Level::Hashes(level) => places.flat_map(|at| hash(level, at)).collect(),
            };
            (tile, bytes.into())
        })
        .collect()
}

/// True if `files` are `expected`, and partial ones of smaller sizes.
fn holds(files: &Files, expected: &Files) -> bool {
    expected.iter().all(|(tile, bytes)| files.get(tile) == Some(bytes))
        && files.iter().all(|(tile, bytes)| {
            let within = |(larger, all): (&Tile, &Bytes)| {
                (larger.level, larger.index) == (tile.level, tile.index) && all.starts_with(bytes)
            };
            expected.iter().any(within)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_log_grown_in_steps_is_one_grown_at_once(mut sizes in prop::collection::vec(0u64..1500, 1..6)) {
        sizes.sort_unstable();
        let size = *sizes.last().unwrap();
        let events = entries(size);
        let (mut steps, mut from) = (Files::new(), 0);
        for to in &sizes {
            let frontier = grow(&mut steps, &events, from, *to);
            prop_assert_eq!(frontier.root(), mth(&leaves(*to)));
            from = *to;
        }
        let mut once = Files::new();
        grow(&mut once, &events, 0, size);
        prop_assert_eq!(&once, &expected(size));
        prop_assert!(holds(&steps, &once));
    }

    #[test]
    fn a_path_is_read_as_it_is_written(level in 0u8..9, index in any::<u64>(), shift in 0u32..64, width in 1u16..=256) {
        let level = if level == 8 { Level::Entries } else { Level::Hashes(level) };
        let tile = Tile { level, index: index >> shift, width };
        let read = Tile::parse(&tile.path());
        prop_assert!(read == Some(tile) || read.is_none());
        // Whatever a log can have is read.
        if let Some(tile) = Tile::at(level, index >> shift, limits::TREE_SIZE_MAX) {
            prop_assert_eq!(Tile::parse(&tile.path()), Some(tile));
            let theirs = tlog_tiles::Tile::from_path(&tile.path().replace("tile/", "tile/8/").replace("entries", "data"));
            if let Ok(theirs) = theirs {
                prop_assert_eq!(theirs.level_index(), tile.index);
                prop_assert_eq!(theirs.width(), u32::from(tile.width));
            }
        }
    }
}

#[test]
fn sizes_around_full_tiles() {
    // 65,536 leaves fill a tile of the second level.
    let size = 65_536 + 257;
    let events = entries(size);
    let (mut files, mut from) = (Files::new(), 0);
    for to in [1, 255, 256, 257, 511, 512, 513, 65_279, 65_280, 65_535, 65_536, 65_537, size] {
        let frontier = grow(&mut files, &events, from, to);
        let mut pushed = Frontier::new();
        leaves(to).into_iter().for_each(|leaf| pushed.push(leaf));
        assert_eq!(frontier, pushed, "{to}");
        assert_eq!(Frontier::from_parts(to, frontier.parts()), Some(frontier));
        from = to;
    }
    let all = expected(size);
    assert!(holds(&files, &all));
    assert!(all.contains_key(&Tile { level: Level::Hashes(2), index: 0, width: 1 }));
    assert!(all.contains_key(&Tile { level: Level::Hashes(1), index: 0, width: 256 }));
}

#[test]
fn another_implementation_wants_the_same_tiles() {
    for (old, new) in [(0, 1), (0, 256), (255, 257), (256, 300), (300, 70_000), (65_535, 65_537)] {
        let mut theirs: Vec<String> = tlog_tiles::Tile::new_tiles(8, old, new)
            .iter()
            .map(|tile| tile.path().replacen("tile/8/", "tile/", 1))
            .collect();
        let events = entries(new);
        let mut files = Files::new();
        if old > 0 {
            grow(&mut files, &events, 0, old);
        }
        let before: Vec<Tile> = files.keys().copied().collect();
        grow(&mut files, &events, old, new);
        before.iter().for_each(|tile| drop(files.remove(tile)));
        let ours: Vec<_> = files.keys().filter(|tile| tile.level != Level::Entries).map(Tile::path).collect();
        theirs.sort_unstable();
        let mut ours = ours;
        ours.sort_unstable();
        assert_eq!(ours, theirs, "{old} to {new}");
    }
}

#[test]
fn what_is_no_path_of_a_tile_is_refused() {
    for bad in [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/00/000",
        "tile/8/000",
        "tile/63/000",
        "tile/data/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/x01/001",
        "tile/0/001/001",
        "tile/0/x001",
        "tile/0/x001/x001",
        "tile/0/+01",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/+1",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "/tile/0/000",
        "tile/0/../000",
        // One past the last that a log can have.
        "tile/7/000.p/128",
        "tile/entries/x036/x028/x797/x018/x963/x968/000",
    ] {
        assert_eq!(Tile::parse(bad), None, "{bad}");
    }
    assert!(Tile::parse("tile/7/000.p/127").is_some());
}

#[test]
fn an_edge_of_another_tree_is_refused() {
    let events = entries(300);
    let mut writer = TileWriter::new();
    events.iter().for_each(|event| writer.push(event));
    let (files, _) = writer.finish();
    let files: Files = files.into_iter().collect();
    let at = |tile: Tile| tile.decode(&files[&tile]).unwrap();
    let [bundle, zero, one] = right_edge(300)[..] else { panic!("three partial tiles") };
    let good = RightEdge { entries: at(bundle), hashes: vec![at(zero), at(one)] };
    assert!(TileWriter::resume(300, good.clone()).is_ok());
    for size in [0, 299, 301, 300 + 256, limits::TREE_SIZE_MAX + 1] {
        assert!(TileWriter::resume(size, good.clone()).is_err(), "{size}");
    }
    let mut bad = good.clone();
    bad.entries[3][0] ^= 1;
    assert!(TileWriter::resume(300, bad).is_err());
    let mut bad = good;
    bad.hashes.push(vec![[0; 32]]);
    assert!(TileWriter::resume(300, bad).is_err());
    // Bytes of another length, and an entry of another length.
    assert_eq!(zero.decode(&files[&zero][1..]), None);
    let mut bytes = files[&bundle].to_vec();
    bytes[1] = 31;
    assert_eq!(bundle.decode(&bytes), None);
}
