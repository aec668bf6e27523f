import { assert, describe, it } from "@effect/vitest"
import * as Headers from "@effect/platform/Headers"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as IpNetwork from "../../src/core/IpNetwork.js"
import * as ClientAddress from "../../src/master/ClientAddress.js"

const networkOf = (text: string) => Option.getOrThrow(IpNetwork.fromText(text))
const addressOf = (text: string) => Option.getOrThrow(IpNetwork.addressFrom(text))

describe("IpNetwork", () => {
  it("contains the addresses with its prefix, and no others", () => {
    for (const [network, inside, outside] of [
      ["10.0.0.0/8", "10.255.255.255", "11.0.0.0"],
      ["10.1.2.3/8", "10.0.0.0", "9.255.255.255"],
      ["192.0.2.7", "192.0.2.7", "192.0.2.6"],
      ["192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"],
      ["::ffff:192.0.2.0/120", "192.0.2.255", "192.0.3.0"],
      ["0.0.0.0/0", "255.255.255.255", "::1"],
      ["::/0", "2001:db8::1", "1.2.3.4"],
      ["2001:db8::/33", "2001:DB8:7fff::", "2001:db8:8000::"],
      ["::1", "0:0:0:0:0:0:0:1", "::2"],
      ["fe80::/10", "fe80::1%eth0", "fec0::"]
    ] as const) {
      assert.isTrue(IpNetwork.contains(networkOf(network), addressOf(inside)), `${network} ${inside}`)
      assert.isFalse(IpNetwork.contains(networkOf(network), addressOf(outside)), `${network} ${outside}`)
    }
  })

  it("is not what is written otherwise", () => {
    const bad =
      "|10|10.0.0|10.0.0.0.0|10.0.0.256|10.0.0.01|10.0.0.0/33|10.0.0.0/|10.0.0.0/08|10.0.0.0/-1|a.b.c.d|::/129"
        .concat(
          "|1::2::3|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|1:2:3:4:5:6:7::8|:::|12345::|g::|1.2.3.4::|::1.2.3|::ffff:1.2.3.4/95"
        )
        .concat("| 10.0.0.0|10.0.0.0 |localhost|fe80::1%eth0/64")
    for (const text of bad.split("|")) assert.isTrue(Option.isNone(IpNetwork.fromText(text)), text)
  })
})

const layer = (trusted: string) =>
  ClientAddress.layer({ trusted: trusted === "" ? [] : trusted.split(",").map(networkOf) })

/** The client of a request from the peer, as the peer of another request would be counted. */
const assertClient = (trusted: string, peer: string, headers: Record<string, string>, expected: string) =>
  Effect.runSync(
    Effect.gen(function* () {
      const { of } = yield* ClientAddress.ClientAddress
      const request = (peer: string, headers: Record<string, string>) =>
        of({ headers: Headers.fromInput(headers), remoteAddress: Option.some(peer) })
      assert.strictEqual(request(peer, headers), request(expected, {}), JSON.stringify(headers))
    }).pipe(Effect.provide(layer(trusted)))
  )

describe("ClientAddress", () => {
  it("is the peer unless the peer is a trusted proxy", () => {
    const headers = { "x-forwarded-for": "1.1.1.1", forwarded: "for=1.1.1.1" }
    assertClient("", "10.0.0.1", headers, "10.0.0.1")
    assertClient("127.0.0.1", "10.0.0.1", headers, "10.0.0.1")
    assertClient("127.0.0.1", "127.0.0.1", headers, "1.1.1.1")
    assertClient("127.0.0.1", "::ffff:127.0.0.1", headers, "1.1.1.1")
    assertClient("127.0.0.1", "127.0.0.1", {}, "127.0.0.1")
  })

  it("is the first address from the right that is not a trusted proxy; what is further left may be forged", () => {
    const trusted = "127.0.0.1,10.0.0.0/8,2001:db8::/32"
    for (const [header, expected] of [
      ["1.1.1.1", "1.1.1.1"],
      ["6.6.6.6, 1.1.1.1", "1.1.1.1"],
      ["6.6.6.6,1.1.1.1, 10.0.0.2", "1.1.1.1"],
      ["6.6.6.6, 1.1.1.1,10.0.0.2 ,2001:db8::2", "1.1.1.1"],
      ["10.0.0.2, 10.0.0.3", "10.0.0.2"],
      ["1.1.1.1:4711, 10.0.0.2", "1.1.1.1"],
      ["[2001:4860::8]:4711", "2001:4860::8"],
      ["2001:4860::8", "2001:4860::8"],
      ["6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"],
      ["6.6.6.6, ", "127.0.0.1"],
      ["", "127.0.0.1"],
      ["<script>", "127.0.0.1"]
    ] as const) {
      assertClient(trusted, "127.0.0.1", { "x-forwarded-for": header }, expected)
    }
    for (const [header, expected] of [
      ["for=1.1.1.1", "1.1.1.1"],
      ["for=6.6.6.6, For=1.1.1.1;proto=http;by=10.0.0.9 , by=x; for=10.0.0.2", "1.1.1.1"],
      ['for="[2001:4860::8]:4711"', "2001:4860::8"],
      ['for="1.1.1.1:80";by="a,b;for=6.6.6.6"', "1.1.1.1"],
      ["for=6.6.6.6, for=_hidden, for=10.0.0.2", "10.0.0.2"],
      ["for=6.6.6.6, by=10.0.0.2", "127.0.0.1"],
      ['for="6.6.6.6, for=1.1.1.1', "127.0.0.1"]
    ] as const) {
      assertClient(trusted, "127.0.0.1", { forwarded: header }, expected)
    }
    // A proxy writes one of them, and the client may have sent the other.
    assertClient(trusted, "127.0.0.1", { "x-forwarded-for": "1.1.1.1", forwarded: "for=6.6.6.6" }, "127.0.0.1")
  })

  it("is one for a whole IPv6 /64", () => {
    assertClient("", "2001:db8:1:2:3::4", {}, "2001:db8:1:2::")
    assertClient("::1", "::1", { "x-forwarded-for": "2001:db8:1:2:ffff::" }, "2001:db8:1:2::")
  })

  it.prop(
    "cannot be chosen by what the client has sent itself",
    [FastCheck.string(), FastCheck.string()],
    ([left, other]) => {
      const clean = (text: string) => text.replaceAll(/[^\x20-\x7e]/g, "")
      assertClient("127.0.0.1", "127.0.0.1", { "x-forwarded-for": `${clean(left)}, 1.1.1.1` }, "1.1.1.1")
      // A quote that is not closed may swallow what follows: then it is the proxy, never an address that the client chose.
      Effect.runSync(
        Effect.gen(function* () {
          const { of } = yield* ClientAddress.ClientAddress
          const at = (peer: string, headers: Record<string, string>) =>
            of({ headers: Headers.fromInput(headers), remoteAddress: Option.some(peer) })
          const found = at("127.0.0.1", { forwarded: `${clean(other)}, for=6.6.6.6, for=1.1.1.1` })
          assert.include([at("1.1.1.1", {}), at("127.0.0.1", {})], found)
        }).pipe(Effect.provide(layer("127.0.0.1")))
      )
    }
  )
})
