//! The laws of join, and the canonical form of programs.

use proptest::prelude::*;
use sluice_crds::parsed::Authentication;
use sluice_policy::program::{
    Cell, NamespaceWord, Point, Program, Rank, Span, TierAction, TierWord,
};

fn rank() -> impl Strategy<Value = Rank> {
    (0_u32..6).prop_map(Rank)
}

fn tier_word() -> impl Strategy<Value = Option<TierWord>> {
    let action = prop_oneof![
        Just(TierAction::Accept),
        Just(TierAction::Deny),
        Just(TierAction::Pass)
    ];
    prop::option::of((rank(), action).prop_map(|(rank, action)| TierWord { rank, action }))
}

fn authentication() -> impl Strategy<Value = Authentication> {
    prop_oneof![
        Just(Authentication::Disabled),
        Just(Authentication::Required),
        Just(Authentication::TestAlwaysFail),
    ]
}

fn namespace_word() -> impl Strategy<Value = NamespaceWord> {
    (
        prop::option::of(rank()),
        any::<bool>(),
        prop::option::of(rank()),
        prop::collection::btree_set((rank(), 0_u16..3), 0..3),
        prop::option::of((authentication(), rank())),
        any::<bool>(),
    )
        .prop_map(
            |(deny, deny_log, allow, redirects, authentication, allow_log)| NamespaceWord {
                deny,
                deny_log,
                allow,
                redirects: redirects.into_iter().collect(),
                authentication,
                allow_log,
            },
        )
}

fn cell() -> impl Strategy<Value = Cell> {
    (tier_word(), namespace_word(), tier_word()).prop_map(|(admin, namespace, baseline)| Cell {
        admin,
        namespace,
        baseline,
    })
}

fn span() -> impl Strategy<Value = Span> {
    let ports = (
        prop_oneof![Just(6_u8), Just(17), Just(1)],
        0_u16..20,
        0_u16..20,
    )
        .prop_map(|(protocol, low, size)| Span::ports(protocol, low, low + size));
    prop_oneof![4 => ports, 1 => Just(Span::ALL), 1 => Just(Span::protocol(6)), 1 => Just(Span::protocol(255))]
}

fn program() -> impl Strategy<Value = Program> {
    let piece =
        (prop::collection::vec(span(), 0..3), cell()).prop_map(|(s, c)| Program::of(&s, &c));
    prop::collection::vec(piece, 0..4).prop_map(Program::join_all)
}

fn points() -> impl Iterator<Item = Point> {
    let protocols = [0_u8, 1, 2, 6, 7, 17, 18, 255];
    protocols.into_iter().flat_map(|protocol| {
        (0_u16..45)
            .chain([u16::MAX])
            .map(move |port| Point::new(protocol, port))
    })
}

proptest! {
    #[test]
    fn join_is_associative(a in program(), b in program(), c in program()) {
        prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
    }

    #[test]
    fn join_is_commutative(a in program(), b in program()) {
        prop_assert_eq!(a.join(&b), b.join(&a));
    }

    #[test]
    fn join_is_idempotent(a in program()) {
        prop_assert_eq!(a.join(&a), a.clone());
        prop_assert_eq!(a.join(&Program::default()), a);
    }

    #[test]
    fn join_is_cell_by_cell(a in program(), b in program()) {
        let joined = a.join(&b);
        for point in points() {
            prop_assert_eq!(joined.at(point), &a.at(point).join(b.at(point)));
        }
    }

    /// The same function, made in another way, is the same value.
    #[test]
    fn programs_are_canonical(spans in prop::collection::vec(span(), 0..4), cell in cell()) {
        let at_once = Program::of(&spans, &cell);
        let one_by_one = spans.iter().map(|span| Program::of(&[*span], &cell)).collect();
        prop_assert_eq!(at_once, Program::join_all(one_by_one));
    }
}
