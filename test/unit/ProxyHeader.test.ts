import { assert, describe, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Net from "node:net"
import * as Address from "../../src/core/Address.js"
import * as ProxyHeader from "../../src/wire/ProxyHeader.js"
import { textOf, utf8 } from "../Bytes.js"

/** The text of an address as Node writes it, and so the rest of the program. */
const canonical = (host: string): string => {
  const { address } = new Net.SocketAddress({ address: host, family: host.includes(":") ? "ipv6" : "ipv4" })
  return address.replace(/^::ffff:(?=\d+\.)/, "")
}

const port = FastCheck.integer({ min: 0, max: 65_535 })
const endpoint = (host: FastCheck.Arbitrary<string>) =>
  FastCheck.tuple(host.map(canonical), port).map(([host, port]) => Address.make(host, port))
const group = FastCheck.oneof(FastCheck.constant("0"), FastCheck.hexaString({ minLength: 1, maxLength: 4 }))
const six = FastCheck.oneof(
  FastCheck.ipV6(),
  FastCheck.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(":"))
  // Node has another way to write the addresses that begin with twelve zeros, which are no longer in use.
).filter((host) => !/^::.*\./.test(canonical(host)))
const endpoints = FastCheck.oneof(
  FastCheck.record({ source: endpoint(FastCheck.ipV4()), destination: endpoint(FastCheck.ipV4()) }),
  FastCheck.record({ source: endpoint(six), destination: endpoint(six) }),
  FastCheck.record({ source: endpoint(FastCheck.ipV4()), destination: endpoint(six) })
)
const version = FastCheck.constantFrom(1 as const, 2 as const)

const one = Address.make("192.0.2.1", 56_324)
const two = Address.make("198.51.100.2", 443)

describe("ProxyHeader", () => {
  it.prop(
    "decodes what it encodes, waits for the rest of a partial header, and takes no byte after it",
    [version, endpoints, FastCheck.uint8Array({ maxLength: 50 })],
    ([version, endpoints, rest]) => {
      const bytes = ProxyHeader.encode(version, endpoints)
      const decoded = ProxyHeader.decode(Uint8Array.from([...bytes, ...rest]))
      assert.deepStrictEqual(decoded, { _tag: "Header", length: bytes.length, endpoints: Option.some(endpoints) })
      for (let cut = 0; cut < bytes.length; cut++) {
        assert.strictEqual(ProxyHeader.decode(bytes.subarray(0, cut))._tag, "Incomplete")
      }
    }
  )

  it("encodes the examples of the specification", () => {
    const v1 = ProxyHeader.encode(1, { source: one, destination: two })
    assert.strictEqual(textOf(v1), "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n")
    const v2 = ProxyHeader.encode(2, { source: one, destination: two })
    assert.strictEqual(Buffer.from(v2).toString("hex"), "0d0a0d0a000d0a515549540a2111000cc0000201c6336402dc0401bb")
    const sixes = { source: Address.make("2001:db8::1", 1), destination: Address.make("::", 2) }
    assert.strictEqual(textOf(ProxyHeader.encode(1, sixes)), "PROXY TCP6 2001:db8::1 :: 1 2\r\n")
    assert.strictEqual(
      Buffer.from(ProxyHeader.encode(2, sixes)).toString("hex"),
      `0d0a0d0a000d0a515549540a2121002420010db8000000000000000000000001${"0".repeat(32)}00010002`
    )
  })

  it.each([1, 2] as const)("version %i encodes a name that is not an IP address as unknown", (version) => {
    const bytes = ProxyHeader.encode(version, { source: Address.make("visitor", 1), destination: two })
    assert.deepStrictEqual(ProxyHeader.decode(bytes), {
      _tag: "Header",
      length: bytes.length,
      endpoints: Option.none()
    })
  })

  it("ignores extensions of version 2, and addresses that are not TCP over IP", () => {
    const header = (rest: string) => Uint8Array.from(Buffer.from(`0d0a0d0a000d0a515549540a${rest}`, "hex"))
    const added = header("21110010c0000201c6336402dc0401bb03000155")
    assert.deepStrictEqual(ProxyHeader.decode(added), {
      _tag: "Header",
      length: added.length,
      endpoints: Option.some({ source: one, destination: two })
    })
    for (const rest of ["20000000", "21000000", "2112000cc0000201c6336402dc0401bb", "20110000"]) {
      const decoded = ProxyHeader.decode(header(rest))
      assert.deepInclude(decoded, { _tag: "Header", endpoints: Option.none() })
    }
    assert.deepInclude(ProxyHeader.decode(utf8("PROXY UNKNOWN ffff:: ffff:: 1 2\r\nrest")), { length: 33 })
  })

  it.each([
    "GET / HTTP/1.1\r\n",
    "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
    "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
    "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
    "PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
    "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
    "PROXY TCP4 192.0.2.256 198.51.100.2 1 443\r\n",
    "PROXY TCP4 ::1 ::1 1 443\r\n",
    "PROXY TCP6 192.0.2.1 198.51.100.2 1 443\r\n",
    "PROXY TCP6 1:2:3:4:5:6:7:8::9 ::1 1 443\r\n",
    "PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n",
    `PROXY UNKNOWN ${"x".repeat(100)}`,
    "\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
    "\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
    "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
    "\r\n\r\n\0\r\nQUIT\n\x21\x41\0\x04abcd",
    "\r\n\r\nX"
  ])("refuses %j", (text) => {
    assert.strictEqual(ProxyHeader.decode(Uint8Array.from(Buffer.from(text, "latin1")))._tag, "Invalid")
  })

  it("decodes a header of version 2 with 64 KiB of TLVs", () => {
    const start = Buffer.from("\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\x0a\0\0\x01\x0a\0\0\x02\0\x09\0\x50", "latin1")
    const bytes = new Uint8Array(16 + 65_535)
    bytes.set(start)
    assert.deepStrictEqual(ProxyHeader.decode(bytes.subarray(0, -1)), { _tag: "Incomplete", bytes: bytes.length })
    assert.deepStrictEqual(ProxyHeader.decode(bytes), {
      _tag: "Header",
      length: bytes.length,
      endpoints: Option.some({ source: Address.make("10.0.0.1", 9), destination: Address.make("10.0.0.2", 80) })
    })
  })

  it.prop(
    "decodes any bytes, and never throws",
    [FastCheck.uint8Array({ maxLength: 300 }), FastCheck.boolean()],
    ([noise, near]) => {
      const bytes = near ? Uint8Array.from([...utf8("PROXY TCP4 "), ...noise]) : noise
      assert.include(["Header", "Incomplete", "Invalid"], ProxyHeader.decode(bytes)._tag)
    }
  )
})
