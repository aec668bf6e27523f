import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Address from "../../src/core/Address.js"
import * as Parameter from "../../src/url/Parameter.js"
import * as TunnelUrl from "../../src/url/TunnelUrl.js"
import { runs } from "../Runs.js"

/** The names of a role's parameters, as errors list them. */
const namesOf = (role: Parameter.Role) => Parameter.byRole[role].map(({ name }) => name).join(", ")

const name = FastCheck.oneof(FastCheck.ipV4(), FastCheck.ipV6(), FastCheck.domain())
const host = FastCheck.oneof(name, FastCheck.constantFrom("", "localhost"))
const port = FastCheck.integer({ min: 1, max: 65535 })
const address = FastCheck.tuple(host, port).map(([host, port]) => Address.make(host, port))
const limit = FastCheck.oneof(FastCheck.integer({ min: 1, max: 1_000_000 }), FastCheck.constant(Infinity))
const quiet = FastCheck.oneof(
  FastCheck.integer({ min: 1, max: 2 ** 40 }).map(Duration.millis),
  FastCheck.constant(Duration.infinity)
)
const common = {
  key: FastCheck.option(FastCheck.fullUnicodeString({ minLength: 1 })).map((key) =>
    Option.map(Option.fromNullable(key), Redacted.make)
  ),
  targets: FastCheck.uniqueArray(address, { minLength: 1, maxLength: 4, selector: String }).map(
    ([first, ...others]) => [first ?? Address.make("", 1), ...others] as const
  ),
  log: FastCheck.constantFrom(...(["none", "debug", "info", "warn", "error", "event"] as const)),
  read: FastCheck.option(quiet).map(Option.fromNullable),
  rate: FastCheck.oneof(FastCheck.integer({ min: 1, max: 100_000 }), FastCheck.constant(Infinity)),
  slot: limit,
  proxy: FastCheck.constantFrom(...(["none", "v1", "v2"] as const)),
  proxyIn: FastCheck.boolean(),
  streams: FastCheck.boolean(),
  pool: FastCheck.constantFrom(...(["oldest", "newest", "fastest"] as const)),
  balance: FastCheck.constantFrom(...(["rr", "least", "hash"] as const)),
  check: FastCheck.oneof(
    FastCheck.integer({ min: 100, max: 2 ** 40 }).map(Duration.millis),
    FastCheck.constant(Duration.infinity)
  ),
  congestion: FastCheck.stringMatching(/^[a-z0-9_-]{1,15}$/),
  dns: FastCheck.integer({ min: 0, max: 86_400_000 }).map(Duration.millis)
}
const file = FastCheck.fullUnicodeString({ minLength: 1 }).filter((text) => !text.includes("\0"))
const count = FastCheck.integer({ min: 1, max: 65535 })
const server = FastCheck.record({
  _tag: FastCheck.constant("Server" as const),
  ...common,
  tunnel: address,
  tls: FastCheck.oneof(
    FastCheck.constantFrom({ mode: "plain" } as const, { mode: "self-signed" } as const),
    FastCheck.record({ mode: FastCheck.constant("verified" as const), crt: file, key: file })
  ),
  mode: FastCheck.constantFrom(...(["auto", "receive", "send"] as const)),
  max: count
})
const named = FastCheck.tuple(name, port).map(([host, port]) => Address.make(host, port))
const client = FastCheck.record({
  _tag: FastCheck.constant("Client" as const),
  ...common,
  tunnel: named,
  standbys: FastCheck.array(named, { maxLength: 3 }),
  servers: FastCheck.constantFrom(...(["failover", "all"] as const)),
  tls: FastCheck.constantFrom(...(["plain", "self-signed", "verified"] as const)),
  authorities: FastCheck.option(file).map(Option.fromNullable),
  mode: FastCheck.constantFrom(...(["auto", "forward", "through"] as const)),
  min: count
})
const serversOf = (config: TunnelUrl.TunnelConfig) =>
  config._tag === "Server" ? [config.tunnel] : [config.tunnel, ...config.standbys]
const config: FastCheck.Arbitrary<TunnelUrl.TunnelConfig> = FastCheck.oneof(server, client).filter(
  (config) =>
    serversOf(config).every(
      (server, index, all) =>
        config.targets.every(({ port }) => port !== server.port) &&
        all.findIndex((other) => String(other) === String(server)) === index
    ) &&
    (config.mode !== "forward" || serversOf(config).length === 1) &&
    (config.mode !== "receive" || config.targets.length === 1) &&
    (config.mode !== "forward" || config.tls === "plain")
)

const ok = (text: string) => Either.getOrThrow(TunnelUrl.parse(text))
const wrong = (text: string) => Either.getOrThrow(Either.flip(TunnelUrl.parse(text)))

describe("a command URL", () => {
  it.prop("parse is the inverse of format", [config], ([config]) => {
    assert.deepStrictEqual(TunnelUrl.parse(TunnelUrl.format(config, { key: "shown" })), Either.right(config))
    const text = Schema.encodeSync(TunnelUrl.FromText)(config)
    assert.deepStrictEqual(Schema.decodeEither(TunnelUrl.FromText)(text), Either.right(config))
  })

  it.prop(
    "the order of the parameters does not matter",
    [config, FastCheck.infiniteStream(FastCheck.nat())],
    ([config, order]) => {
      const [head = "", query = ""] = TunnelUrl.format(config, { key: "shown" }).split("?")
      const shuffled = query.split("&").map((pair) => [order.next().value, pair] as const)
      const sorted = shuffled.toSorted(([a], [b]) => a - b).map(([, pair]) => pair)
      assert.deepStrictEqual(TunnelUrl.parse(`${head}?${sorted.join("&")}`), Either.right(config))
    }
  )

  it.prop("omitting parameters that have their default changes nothing", [config], ([config]) => {
    const [head, query = ""] = TunnelUrl.format(config, { key: "shown" }).split("?")
    const pairs = new Set(TunnelUrl.parameters.map((one) => `${one.name}=${one.default}`))
    const text = `${head}?${query
      .split("&")
      .filter((pair) => !pairs.has(pair))
      .join("&")}`
    assert.deepStrictEqual(TunnelUrl.parse(text), Either.right(config))
  })

  it.prop(
    "any text is accepted, or refused in one line without control characters, and nothing is thrown",
    [
      FastCheck.oneof(
        FastCheck.fullUnicodeString(),
        FastCheck.string16bits(),
        FastCheck.webUrl({ withFragments: true, withQueryParameters: true }),
        FastCheck.tuple(FastCheck.constantFrom("server://", "client://"), FastCheck.string()).map((parts) =>
          parts.join("")
        ),
        FastCheck.string().map((garbage) => `server://:1/:2?${garbage}`)
      )
    ],
    ([text]) => {
      const result = TunnelUrl.parse(text)
      if (Either.isLeft(result)) {
        assert.notMatch(result.left.message, /[\p{Cc}\u2028\u2029]/u)
        assert.match(result.left.message, /: expected |; (server|client):\/\/ accepts /)
      }
    },
    { fastCheck: { numRuns: runs(180, 1000) } }
  )

  it.prop(
    "the key is in no error, in no description, and in the formatted text only on request",
    [config, FastCheck.stringMatching(/^[A-Z][A-Za-z0-9/?#@:%&=]{7,20}$/), FastCheck.nat()],
    ([config, key, at]) => {
      const keyed = { ...config, key: Option.some(Redacted.make(key)) }
      assert.notInclude(TunnelUrl.report(keyed) + TunnelUrl.format(keyed) + JSON.stringify(keyed), key)
      const text = TunnelUrl.format(config).replace(/\/\/(\*\*\*@)?/, `//${key}@`)
      const cut = text.indexOf("@") + 1 + (at % (text.length - text.indexOf("@")))
      for (const broken of [
        text,
        `x${text}`,
        `${text}&foo=1`,
        text.slice(0, cut),
        text.slice(1),
        text.slice(text.indexOf(key))
      ]) {
        const result = TunnelUrl.parse(broken)
        if (Either.isLeft(result)) assert.notInclude(JSON.stringify(result.left) + result.left.message, key)
      }
    },
    { fastCheck: { numRuns: runs(120, 500) } }
  )

  it("has the documented defaults", () => {
    const common = {
      key: Option.none(),
      log: "info",
      mode: "auto",
      read: Option.none(),
      rate: Infinity,
      slot: 65536,
      proxy: "none",
      proxyIn: false,
      streams: true,
      pool: "oldest",
      balance: "rr",
      check: Duration.infinity,
      congestion: "auto",
      dns: Duration.minutes(5)
    } as const
    assert.deepStrictEqual(ok("server://:10101/:8080"), {
      ...common,
      _tag: "Server",
      tunnel: Address.make("", 10101),
      targets: [Address.make("", 8080)],
      tls: { mode: "plain" },
      max: 1024
    })
    assert.deepStrictEqual(ok("client://example.org:10101/[::1]:8080"), {
      ...common,
      _tag: "Client",
      tunnel: Address.make("example.org", 10101),
      targets: [Address.make("::1", 8080)],
      tls: "plain",
      authorities: Option.none(),
      standbys: [],
      servers: "failover",
      min: 64
    })
  })

  it.each([
    ["secret@", "secret"],
    ["user:password@", "user:password"],
    ["a%40b%2Fc%25@", "a@b/c%"],
    ["a@b@", "a@b"],
    ["\u00fc\u{1f511}@", "\u00fc\u{1f511}"],
    ["a+b@", "a+b"]
  ])("%s: the key is the whole text before the last @, percent-decoded", (userinfo, key) => {
    assert.deepStrictEqual(Option.map(ok(`server://${userinfo}:1/:2`).key, Redacted.value), Option.some(key))
  })

  it.each(["server://:1/:2", "server://@:1/:2"])("%s has no key", (text) => {
    assert.isTrue(Option.isNone(ok(text).key))
  })

  it("0 means no limit, for read and for slot", () => {
    const { read, slot } = ok("client://h:1/:2?read=0&slot=0")
    assert.deepStrictEqual([read, slot], [Option.some(Duration.infinity), Infinity])
  })

  it("an empty host is this machine where it is connected to, and every interface where it is listened on", () => {
    assert.strictEqual(ok("client://:1/:2").tunnel.host, "127.0.0.1")
    assert.strictEqual(ok("client://:1/:2?mode=2").tunnel.host, "127.0.0.1")
    assert.strictEqual(ok("client://:1/x:2?mode=1").tunnel.host, "")
    assert.strictEqual(ok("server://:1/:2").tunnel.host, "")
  })

  it("white space around it, upper case in the scheme and empty parameters are ignored", () => {
    assert.deepStrictEqual(ok(" \tSERVER://:1/:2?&max=5&\n"), ok("server://:1/:2?max=5"))
  })

  it("the same port on two machines, or on two addresses of one machine, is accepted", () => {
    ok("client://example.org:80/:80")
    ok("client://127.0.0.2:80/127.0.0.1:80")
    ok("server://:80/192.0.2.1:80?mode=2")
  })

  it.each([
    ["", "url is missing: expected server://host:port/host:port or client://host:port/host:port"],
    ["key@h:1/:2", "url=***@h:1/:2: expected server://host:port/host:port or client://host:port/host:port"],
    ["master://:1/api", "scheme=master: expected server or client; only the command line accepts master://"],
    ["http://h:1/:2", "scheme=http: expected server or client; only the command line accepts master://"],
    ["server://%zz@:1/:2", "key=***: expected two hex digits after each %, and % itself written as %25"],
    ["server://:1", "target is missing: expected host:port, an IPv6 host in brackets, after the tunnel's /"],
    ["server:///:2", "tunnel is missing: expected host:port, an IPv6 host in brackets"],
    ["server://h/:2", "tunnel=h: expected host:port, an IPv6 host in brackets"],
    ["server://::1/:2", "tunnel=::1: expected host:port, an IPv6 host in brackets"],
    ["server://%68:1/:2", "tunnel=%68:1: expected host:port, an IPv6 host in brackets"],
    ["server://:0/:2", "tunnel port=0: expected a whole number from 1 to 65535"],
    ["server://:1/:65536", "target port=65536: expected a whole number from 1 to 65535"],
    ["server://h:1,i:1/a:2", "tunnel=h:1,i:1: expected one host:port"],
    [
      "client://h:1,i:1/a:2?mode=1",
      "tunnel=h:1,i:1: expected one host:port with mode=1, which listens there for visitors"
    ],
    ["client://h:1,i/a:2", "tunnel=i: expected host:port, an IPv6 host in brackets"],
    ["client://h:1,i:0/a:2", "tunnel port=0: expected a whole number from 1 to 65535"],
    ["client://h:1,,i:1/a:2", "tunnel is missing: expected host:port, an IPv6 host in brackets"],
    ["client://h:1,i:1,h:1/a:2", "tunnel=h:1: expected each server once"],
    ["client://h:1,i:2/i:2", "target port=2: expected another port than the tunnel's on the same address"],
    [
      "client://h:1,i:1/a:2?servers=both",
      "servers=both: expected failover (the first that is up) or all (all at the same time)"
    ],
    ["client://h:1/a:2,b:2,a:2", "target=a:2: expected each target once"],
    ["client://h:1/a:2,,b:2", "target is missing: expected host:port, an IPv6 host in brackets, after the tunnel's /"],
    ["client://h:1/a:2,b:1,h:1", "target port=1: expected another port than the tunnel's on the same address"],
    [
      "server://:1/a:2,b:2?mode=1",
      "target=a:2,b:2: expected one host:port with mode=1, which listens there for visitors"
    ],
    ["server://:1/:2#x", "fragment=#x: expected none; a # in a value is written as %23"],
    ["client://h:1/:2?min=0", "min=0: expected a whole number from 1 to 65535"],
    ["client://h:1/:2?min=065", "min=065: expected a whole number from 1 to 65535"],
    ["client://h:1/:2?min", "min is missing: expected a whole number from 1 to 65535"],
    ["server://:1/:2?max=65536", "max=65536: expected a whole number from 1 to 65535"],
    ["server://:1/:2?slot=1000001", "slot=1000001: expected a whole number from 1 to 1000000, or 0 for no limit"],
    ["server://:1/:2?read=-5s", "read=-5s: expected a duration such as 30s, 1h30m, 250ms, or 0 for no limit"],
    ["server://:1/:2?read=%2", "read=%2: expected two hex digits after each %"],
    ["server://:1/:2?log=loud", "log=loud: expected one of none, debug, info, warn, error, event"],
    ["server://:1/:2?mode=3", "mode=3: expected 0 (auto), 1 (receive) or 2 (send)"],
    ["client://h:1/:2?mode=auto", "mode=auto: expected 0 (auto), 1 (forward) or 2 (through)"],
    ["server://:1/:2?tls=3", "tls=3: expected 0 (plain), 1 (self-signed, made in memory) or 2 (the files crt and key)"],
    ["server://:1/:2?tls=2&key=a.pem", "crt is missing: expected a certificate file, because tls=2"],
    ["server://:1/:2?tls=2&crt=a.pem", "key is missing: expected the private key file of crt, because tls=2"],
    ["server://:1/:2?tls=2&crt=&key=a", "crt is missing: expected a certificate file, with tls=2"],
    ["server://:1/:2?crt=a.pem", "crt=a.pem: expected no certificate file unless tls=2"],
    ["server://:1/:2?tls=1&key=a.pem", "key=***: expected no private key file unless tls=2"],
    ["client://h:1/:2?tls=1&mode=1", "tls=1: expected 0 with mode=1, which connects to no server"],
    [
      "client://h:1/:2?tls=yes",
      "tls=yes: expected 0 (whatever the server has), 1 (TLS) or 2 (TLS with a verified certificate)"
    ],
    ["server://:1/:2?rate=1.5", "rate=1.5: expected a whole number of Mbit/s from 1 to 100000, or 0 for no limit"],
    ["client://h:1/:2?proxy=3", "proxy=3: expected 0 (none), 1 (PROXY protocol v1) or 2 (v2)"],
    ["client://h:1/:2?proxy-in=2", "proxy-in=2: expected 0 (no) or 1 (yes)"],
    [
      "client://h:1/:2?lb=random",
      "lb=random: expected rr (round robin), least (fewest visitors) or hash (by the visitor's address)"
    ],
    ["client://h:1/:2?check=50ms", "check=50ms: expected a duration from 100ms, such as 10s, or 0 for never"],
    ["server://:1/:2?max=1&max=2", "max=2: expected each parameter once"],
    ["client://h:1/:2?max=5", `max is a server parameter; client:// accepts ${namesOf("client")}`],
    ["server://:1/:2?slots=5", `slots is not a parameter (did you mean slot?); server:// accepts ${namesOf("server")}`],
    ["client://h:1/:2?colour=red", `colour is not a parameter; client:// accepts ${namesOf("client")}`],
    ["client://h:1/:2?token=t0k", `token is not a parameter; client:// accepts ${namesOf("client")}`],
    ["server://:80/:80", "target port=80: expected another port than the tunnel's on the same address"]
  ])("%s is refused: %s", (text, message) => {
    assert.strictEqual(wrong(text).message, message)
  })

  it.each([
    "server://:80/127.0.0.1:80",
    "server://localhost:80/127.0.0.1:80",
    "server://[::]:80/0.0.0.0:80",
    "server://192.0.2.1:80/:80?mode=1",
    "server://Example.org:80/example.org:80",
    "client://:80/:80"
  ])("%s is refused: tunnel and target would be one port", (text) => {
    assert.strictEqual(wrong(text).part, "target port")
  })

  it("a key with / ? # in it is refused, and no part of it is shown as an address", () => {
    for (const text of ["server://pa/ss@:1/:2", "server://pa?ss@:1/:2", "server://pa#ss@:1/:2"]) {
      assert.strictEqual(
        wrong(text).message,
        "key=***: expected / ? # in the key written as %2F %3F %23, and no @ after the one that ends it"
      )
    }
  })

  it.each(["mni", "mn", "minn", "Min", "lgo", "reed", "prxoy", "mod", "slots", "rte"])(
    "a misspelled parameter gets a suggestion: %s",
    (name) => {
      assert.match(
        wrong(`client://h:1/:2?${name}=1`).message,
        /\(did you mean (min|log|read|proxy|mode|slot|rate)\?\);/
      )
    }
  )

  it.each([
    ["server://k@h", /^tunnel=h: expected/],
    ["server://k@h:1/h:65536", /^target port=65536: expected a whole number from 1 to 65535/],
    ["server://k@h:1", /^target is missing: expected/],
    ["server://k@:1/:1", /^target port=1: expected another port/],
    ["server://k@h:1/a:2,b:3?mode=1", /^target=a:2,b:3: expected one host:port/],
    ["server://k@h:1/a:2,a:2", /^target=a:2: expected each target once/],
    ["server://k@h:1/h:2?max=0", /^max=0: expected a whole number from 1 to 65535/],
    ["server://k@h:1/h:2?min=1", /^min is a client parameter; server:\/\/ accepts/],
    ["client://k@h:1/h:2?max=1", /^max is a server parameter; client:\/\/ accepts/],
    ["server://k@h:1/h:2?mode=3", /^mode=3: expected 0 \(auto\)/],
    ["server://k@h:1/h:2?read=5", /^read=5: expected a duration/],
    ["server://k@h:1/h:2?slot=-1", /^slot=-1: expected a whole number/],
    ["server://k@h:1/h:2?log=loud", /^log=loud: expected one of/],
    ["server://k@h:1/h:2?log=info&log=info", /^log=info: expected each parameter once/],
    ["server://k@h:1/h:2?tls=3", /^tls=3: expected 0 \(plain\)/],
    ["server://k@h:1/h:2?tls=2&crt=c.pem", /^key is missing: expected the private key file of crt/],
    ["server://k@h:1/h:2?key=c.pem", /^key=\*\*\*: expected no private key file unless tls=2/],
    ["client://k@h:1/h:2?tls=1&mode=1", /^tls=1: expected 0 with mode=1/],
    ["server://k@h:1/h:2?rate=-1", /^rate=-1: expected a whole number of Mbit/],
    ["server://k@h:1/h:2?proxy=3", /^proxy=3: expected 0 \(none\)/],
    ["server://k@h:1/h:2?proxy-in=yes", /^proxy-in=yes: expected 0 \(no\)/],
    ["server://k@h:1/h:2?lb=best", /^lb=best: expected rr/],
    ["server://k@h:1/h:2?check=1ms", /^check=1ms: expected a duration from 100ms/]
  ] as const)("%s is refused by the name of its part", (text, line) => assert.match(wrong(text).message, line))

  it("a long value is cut in the error", () => {
    assert.isBelow(wrong(`server://:1/:2?max=${"9".repeat(100_000)}`).message.length, 200)
  })
})

describe("a completed URL", () => {
  const files = { mode: "verified", crt: "/a b.pem", key: "/k.pem" } as const
  const complete = (text: string, tls: TunnelUrl.Defaults["tls"] = { mode: "plain" }) =>
    Either.getOrThrow(TunnelUrl.complete(text, { log: "warn", tls })).text

  it.each([
    ["client://h:1/:2", "client://h:1/:2?log=warn"],
    ["client://h:1/:2?log=info", "client://h:1/:2?log=info"],
    [" client://h:1/:2?min=5& ", "client://h:1/:2?min=5&log=warn"],
    ["SERVER://k@:1/:2", "SERVER://k@:1/:2?log=warn&tls=2&crt=/a%20b.pem&key=/k.pem"],
    ["server://:1/:2?tls=1", "server://:1/:2?tls=1&log=warn"],
    ["server://:1/:2?tls=2&key=/own.pem", "server://:1/:2?tls=2&key=/own.pem&log=warn&crt=/a%20b.pem"]
  ])("%s has the defaults that it does not set: %s", (text, completed) => {
    assert.strictEqual(complete(text, files), completed)
  })

  it.prop("keeps the text as given, and is complete", [config], ([config]) => {
    const text = TunnelUrl.format(config, { key: "shown" })
    assert.strictEqual(complete(text, files), text)
    const bare = text.replace(/\?.*/, "")
    assert.isTrue(complete(bare).startsWith(bare))
    assert.strictEqual(complete(complete(bare)), complete(bare))
  })

  it.each([
    ["", "url is missing: expected server://host:port/host:port or client://host:port/host:port"],
    ["server://:1/:2?tls=2", "crt is missing: expected a certificate file, because tls=2"],
    ["client://h:1/:2?tls=5", /^tls=5: expected/]
  ])("%s is refused like by parse", (text, message) => {
    const result = TunnelUrl.complete(text, { log: "info", tls: { mode: "plain" } })
    assert.match(Either.getOrThrow(Either.flip(result)).message, new RegExp(message))
  })
})

describe("a formatted URL", () => {
  it("has every default written out, and the key masked", () => {
    assert.strictEqual(
      TunnelUrl.format(ok("server://secret@:10101/:8080")),
      "server://***@:10101/:8080?log=info&tls=0&max=1024&mode=0&rate=0&slot=65536&proxy=0&proxy-in=0&lb=rr&check=0&streams=1&pool=oldest&cc=auto&dns=5m"
    )
    assert.strictEqual(
      TunnelUrl.format(ok("client://h:10101/[::1]:8080?mode=2&read=90m&slot=0")),
      "client://h:10101/[::1]:8080?log=info&tls=0&min=64&mode=2&servers=failover&read=1h30m&rate=0&slot=0&proxy=0&proxy-in=0&lb=rr&check=0&streams=1&pool=oldest&cc=auto&dns=5m"
    )
  })

  it("its rows distinguish defaults from other values", () => {
    const rows = TunnelUrl.describe(ok("client://h:1/:2?min=5&mode=0"))
    assert.deepStrictEqual(
      rows.filter(({ isDefault }) => !isDefault).map(({ part, value }) => [part, value]),
      [
        ["role", "client"],
        ["tunnel", "h:1"],
        ["target", ":2"],
        ["min", "5"]
      ]
    )
  })

  it.prop("has a row for each parameter with a default", [config], ([config]) => {
    const role = config._tag === "Server" ? "server" : "client"
    const names = TunnelUrl.parameters.filter((one) => one.roles.includes(role) && one.default !== undefined)
    assert.includeMembers(
      TunnelUrl.describe(config).map(({ part }) => part),
      names.map(({ name }) => name)
    )
  })
})
