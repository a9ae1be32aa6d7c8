use sluice_e2e::wire::*;
use std::time::Duration;
fn main() -> anyhow::Result<()> {
    let d = Duration::from_millis(500);
    for (n, t) in [("bare", Topology::bare()?), ("bridge", Topology::bridge()?), ("ct", Topology::router(Netfilter::Conntrack,1)?), ("ipt1000", Topology::router(Netfilter::Iptables,1000)?),("ipset10000", Topology::router(Netfilter::Ipset,10000)?),("nft10000", Topology::router(Netfilter::NftSet,10000)?)] {
        let rr = request_response(&t.client, &t.server, d)?;
        let c = connects(&t.client, &t.server, d)?;
        let s = stream(&t.client, &t.server, d)?;
        println!("{n}: rr p50 {} connect p50 {} ({}/s) stream {s:.1}", rr[rr.len()/2], c[c.len()/2], c.len()*2);
    }
    Ok(())
}
