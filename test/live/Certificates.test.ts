import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { X509Certificate } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { type Certificate, Certificates, current } from "../../src/transport/Certificates.js"
import * as NodeCertificates from "../../src/node/socket/NodeCertificates.js"
import * as SimCertificates from "../../src/testing/SimCertificates.js"
import * as LiveCertificates from "./LiveCertificates.js"
import { runs } from "../Runs.js"
import * as Simulated from "../Simulated.js"

const files = { crt: "tls.crt", key: "tls.key" }
const issue = (serial: string, expires = 1e12) =>
  SimCertificates.issue({ serial, names: ["a.example"], begins: 0, expires })

interface Logged {
  readonly level: string
  readonly text: string
  readonly fingerprint: unknown
}

/** Runs a program for ten seeds, with a simulated disk and the log records so far. */
const world = <E>(
  program: (disk: SimCertificates.Disk, logged: Array<Logged>) => Effect.Effect<void, E, Certificates | Scope.Scope>
): void => {
  for (let seed = 0; seed < runs(3, 10); seed++) {
    const disk = SimCertificates.disk(seed)
    const logged: Array<Logged> = []
    const logger = Logger.make<unknown, void>(({ annotations, logLevel, message }) => {
      const fingerprint = Option.getOrUndefined(HashMap.get(annotations, "fingerprint"))
      logged.push({ level: logLevel.label, text: String(message), fingerprint })
    })
    Simulated.run({ seed, turn: 100 }, () =>
      program(disk, logged).pipe(
        Effect.provide(disk.layer),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
    )
  }
}

const put = (disk: SimCertificates.Disk, { chain, key }: Certificate) =>
  Effect.zipRight(disk.write(files.crt, chain), disk.write(files.key, Redacted.value(key)))
const reloadInterval = Duration.hours(1)

describe("the certificate in force", () => {
  it("is the one in the files, and follows a change of the files within a second", () =>
    world((disk, logged) =>
      Effect.gen(function* () {
        const [one, two] = [issue("1"), issue("2")]
        yield* put(disk, one)
        const { get } = yield* current(files, { reloadInterval })
        assert.strictEqual((yield* get).fingerprint, one.fingerprint)
        yield* Effect.sleep("3 hours")
        assert.deepStrictEqual(logged, [])
        for (const next of [two, one]) {
          yield* put(disk, next)
          yield* Effect.sleep("1 second")
          assert.strictEqual((yield* get).fingerprint, next.fingerprint)
        }
        assert.deepStrictEqual(
          logged.map(({ fingerprint, level }) => [level, fingerprint]),
          [
            ["INFO", two.fingerprint],
            ["INFO", one.fingerprint]
          ]
        )
      })
    ))

  it("stays when the files become unusable, which is logged once", () =>
    world((disk, logged) =>
      Effect.gen(function* () {
        const [one, two] = [issue("1"), issue("2")]
        yield* put(disk, one)
        const { get } = yield* current(files, { reloadInterval })
        yield* disk.write(files.crt, two.chain)
        yield* Effect.sleep("10 hours")
        assert.strictEqual((yield* get).fingerprint, one.fingerprint)
        const mismatch = "key=tls.key: is not the key of the certificate in tls.crt"
        const lines = () => logged.map(({ level, text }) => `${level} ${text}`)
        const line = `WARN ${mismatch}; the previous certificate stays in use`
        assert.deepStrictEqual(lines(), [line])
        yield* disk.write(files.key, Redacted.value(two.key))
        yield* Effect.sleep("1 second")
        assert.strictEqual((yield* get).fingerprint, two.fingerprint)
        yield* disk.write(files.crt, undefined)
        yield* Effect.sleep("1 second")
        assert.deepStrictEqual(lines(), [
          line,
          "INFO new certificate in use",
          "WARN crt=tls.crt: cannot be read: no such file; the previous certificate stays in use"
        ])
      })
    ))

  it("fails to start when a file is missing or the certificate has expired", () =>
    world((disk) =>
      Effect.gen(function* () {
        const start = Effect.scoped(Effect.flip(current(files, { reloadInterval })))
        assert.include(["Unreadable"], (yield* Effect.orDie(start)).reason)
        yield* put(disk, issue("1", 500))
        yield* Effect.sleep("1 second")
        assert.strictEqual((yield* Effect.orDie(start)).reason, "Expired")
      })
    ))
})

/** A new folder, removed with the scope. */
const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-certificates-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const live = <E>(sentence: string, program: () => Effect.Effect<void, E, Certificates | Scope.Scope>): void =>
  it.scopedLive(sentence, () => Effect.provide(Effect.suspend(program), NodeCertificates.layer))

const spec = { issuer: "known", names: ["a.example", "127.0.0.1"] } as const

describe("NodeCertificates", () => {
  live("makes a new self-signed certificate each time, valid for ten years", () =>
    Effect.gen(function* () {
      const { selfSigned } = yield* Certificates
      const [one, two] = yield* Effect.all([selfSigned, selfSigned])
      assert.notStrictEqual(one.fingerprint, two.fingerprint)
      const leaf = new X509Certificate(one.chain)
      assert.strictEqual(leaf.fingerprint256.replaceAll(":", "").toLowerCase(), one.fingerprint)
      assert.isTrue(leaf.verify(leaf.publicKey))
      assert.approximately((one.expires - Date.now()) / 86_400_000, 3652, 1)
      assert.approximately(Date.now() - Date.parse(leaf.validFrom), 3_600_000, 60_000)
      assert.notInclude(JSON.stringify(one), "PRIVATE")
    })
  )

  live("loads a chain and its key, with names and expiry", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const made = yield* LiveCertificates.certificate(spec)
      const [crt, key] = [Path.join(path, "crt"), Path.join(path, "key")]
      Fs.writeFileSync(crt, `some text\n${made.chain}${yield* LiveCertificates.authority}`)
      Fs.writeFileSync(key, Redacted.value(made.key))
      const { authorities, load } = yield* Certificates
      const loaded = yield* load({ crt, key })
      assert.deepStrictEqual(
        [loaded.fingerprint, loaded.names, loaded.expires],
        [made.fingerprint, spec.names, made.expires]
      )
      assert.lengthOf(loaded.chain.match(/BEGIN/g) ?? [], 2)
      assert.lengthOf(yield* authorities(crt), 2)
    })
  )

  live("reports which file is unusable, and why", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const write = (name: string, text: string) => {
        Fs.writeFileSync(Path.join(path, name), text)
        return Path.join(path, name)
      }
      const one = yield* LiveCertificates.certificate(spec)
      const two = yield* LiveCertificates.certificate(spec)
      const old = yield* LiveCertificates.certificate({ ...spec, begins: -2e9, expires: -1e9 })
      const crt = write("crt", one.chain)
      const key = write("key", Redacted.value(one.key))
      const { authorities, load } = yield* Certificates
      const errorOf = (files: { crt: string; key: string }) => Effect.map(Effect.flip(load(files)), String)
      const none = Path.join(path, "none")
      assert.include(yield* errorOf({ crt: none, key }), `crt=${none}: cannot be read: no such file`)
      assert.include(yield* errorOf({ crt: path, key }), `crt=${path}: cannot be read: it is a folder`)
      assert.include(yield* errorOf({ crt, key: none }), `key=${none}: cannot be read: no such file`)
      assert.include(yield* errorOf({ crt: key, key }), `crt=${key}: holds no certificate in PEM`)
      const broken = write("broken", one.chain.replace("MII", "MIJ"))
      assert.include(yield* errorOf({ crt: broken, key }), `crt=${broken}: holds no certificate in PEM`)
      assert.include(yield* errorOf({ crt, key: crt }), `key=${crt}: holds no private key in PEM`)
      const other = write("other", Redacted.value(two.key))
      assert.include(yield* errorOf({ crt, key: other }), `key=${other}: is not the key of the certificate in ${crt}`)
      const late = { crt: write("late.crt", old.chain), key: write("late.key", Redacted.value(old.key)) }
      assert.match(yield* errorOf(late), /late\.crt: its certificate expired at \S+Z/)
      assert.strictEqual((yield* Effect.flip(authorities(key))).message, `ca=${key}: holds no certificate in PEM`)
    })
  )

  live("notices a file that is written, replaced, removed, or reached through a changed symbolic link", () =>
    Effect.gen(function* () {
      const path = yield* folder
      const at = (name: string) => Path.join(path, name)
      const link = (target: string, name: string) => {
        Fs.symlinkSync(target, at("next"))
        Fs.renameSync(at("next"), at(name))
      }
      for (const name of ["one", "two"]) {
        Fs.mkdirSync(at(name))
        Fs.writeFileSync(at(`${name}/crt`), name)
      }
      link("one", "data")
      link("data/crt", "crt")
      Fs.writeFileSync(at("key"), "0")
      const changed = yield* (yield* Certificates).changes({ crt: at("crt"), key: at("key") })
      const quiet = Effect.timeoutOption(changed, "100 millis")
      yield* Effect.repeat(quiet, { until: Option.isNone })
      const steps = [
        () => Fs.writeFileSync(at("key"), "1"),
        () => {
          Fs.writeFileSync(at("other"), "2")
          Fs.renameSync(at("other"), at("key"))
        },
        () => Fs.writeFileSync(at("one/crt"), "3"),
        () => link("two", "data"),
        () => Fs.writeFileSync(at("two/crt"), "4"),
        () => link("one/crt", "crt"),
        () => Fs.rmSync(at("key"))
      ]
      for (const step of steps) {
        yield* Effect.sync(step)
        yield* changed
        yield* Effect.repeat(quiet, { until: Option.isNone })
      }
      Fs.writeFileSync(at("unrelated"), "5")
      assert.isTrue(Option.isNone(yield* quiet))
    })
  )

  live("reports no change for files in a missing folder", () =>
    Effect.gen(function* () {
      const changed = yield* (yield* Certificates).changes({ crt: "/nowhere/crt", key: "/nowhere/key" })
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(changed, "20 millis")))
    })
  )
})
