use sluice_worldgen::{Parameters, generate_seeded};
fn main() {
    let seed: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    for d in generate_seeded(&Parameters::small(), seed).documents {
        println!("{d}");
    }
}
