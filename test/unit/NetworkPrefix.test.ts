import { assert, describe, it } from "@effect/vitest"
import * as Address from "../../src/core/Address.js"
import * as NetworkPrefix from "../../src/relay/NetworkPrefix.js"

describe("NetworkPrefix", () => {
  it.each([
    ["192.0.2.77", "192.0.2"],
    ["::ffff:192.0.2.77", "192.0.2"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2"],
    ["2001:0DB8:0001:0002::6", "2001:db8:1:2"],
    ["2001:db8::6", "2001:db8:0:0"],
    ["2001:db8:1::2:3:4:5", "2001:db8:1:0"],
    ["fe80::1%eth0", "fe80:0:0:0"],
    ["64:ff9b::192.0.2.1", "64:ff9b:0:0"],
    ["::", "0:0:0:0"],
    ["127.0.0.9", "127.0.0"],
    ["::1", "0:0:0:0"],
    ["example.org", undefined]
  ])("of %s is %s", (host, prefix) => {
    assert.strictEqual(NetworkPrefix.of(Address.make(host, 1)), prefix)
  })

  it.each([
    ["192.0.2.77", "192.0.2.77"],
    ["::ffff:192.0.2.77", "192.0.2.77"],
    ["2001:0DB8:0001:0002::6", "2001:db8:1:2"],
    ["127.0.0.9", "127.0.0.9"],
    ["::1", "0:0:0:0"]
  ])("of a TCP peer at %s is %s", (host, prefix) => {
    assert.strictEqual(NetworkPrefix.ofTcpPeer(Address.make(host, 1)), prefix)
  })
})
