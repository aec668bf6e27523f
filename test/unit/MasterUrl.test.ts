import { assert, describe, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as MasterUrl from "../../src/url/MasterUrl.js"

const parse = (text: string) => Either.getOrThrow(MasterUrl.parse(text))
const problem = (text: string) => Either.match(MasterUrl.parse(text), { onLeft: String, onRight: () => "accepted" })

describe("MasterUrl", () => {
  it("has a default for everything but the address", () => {
    const config = parse("master://:9090")
    assert.strictEqual(MasterUrl.format(config), "master://:9090/api?log=info&tls=0&metrics=key")
    assert.deepInclude(config, { prefix: "/api", log: "info", tls: { mode: "plain" }, metrics: "key" })
    assert.isTrue(Option.isNone(config.state))
  })

  it.each([
    ["master://h:1/", "/api"],
    ["master://h:1/a/b/", "/a/b"],
    ["MASTER://h:1/x", "/x"]
  ])("%s has the prefix %s", (text, prefix) => assert.strictEqual(parse(text).prefix, prefix))

  it("never shows the password of its database", () => {
    const config = parse("master://h:1?state=postgres://me:s3cret@db/np")
    assert.strictEqual(Option.map(config.state, Redacted.value).pipe(Option.getOrThrow), "postgres://me:s3cret@db/np")
    for (const text of [MasterUrl.format(config), MasterUrl.report(config), JSON.stringify(config)]) {
      assert.notInclude(text, "s3cret")
    }
  })

  it.each([
    ["master:", /url=master:: expected/],
    ["master://", /address is missing: expected host:port/],
    ["master://h", /address=h: expected host:port/],
    ["master://k@h:1", /expected nothing before an @/],
    ["master://h:1/a b", /prefix=\/a b: expected letters/],
    ["master://h:1#x", /fragment=#x/],
    ["master://h:1?tls=3", /tls=3: expected 0 \(http\)/],
    ["master://h:1?tls=2", /crt is missing/],
    ["master://h:1?crt=c.pem", /crt=c.pem: expected no certificate file unless tls=2/],
    ["master://h:1?min=3", /min is a client parameter; master:\/\/ accepts log, tls/],
    ["master://h:1?metrics=all", /metrics=all: expected key/],
    ["master://h:1?state=", /state is missing: expected a folder/],
    ["master://h:1?log=loud", /log=loud: expected one of/]
  ] as ReadonlyArray<readonly [string, RegExp]>)("refuses %s", (text, line) => assert.match(problem(text), line))
})
