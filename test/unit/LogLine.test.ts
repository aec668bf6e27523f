import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import * as LogLine from "../../src/core/LogLine.js"

/** The lines that the effect logs, at noon of 31 January. */
const lines = <E>(
  logger: Logger.Logger<unknown, string>,
  effect: Effect.Effect<void, E>,
  level: LogLine.Level = "info"
) =>
  Effect.gen(function* () {
    const logged: Array<string> = []
    yield* TestClock.setTime(Date.UTC(2026, 0, 31, 12))
    yield* Effect.provide(
      effect,
      Layer.mergeAll(
        Logger.replace(
          Logger.defaultLogger,
          Logger.map(logger, (line) => logged.push(line))
        ),
        Logger.minimumLogLevel(LogLine.minimum(level))
      )
    )
    return logged
  })

const text = LogLine.text()
const value = FastCheck.oneof(FastCheck.anything({ withBigInt: true, withDate: true }), FastCheck.fullUnicodeString())

describe("a line of text", () => {
  it.effect("has the time in UTC with its zone, the level, the message and the annotations", () =>
    Effect.gen(function* () {
      const got = yield* lines(
        text,
        Effect.annotateLogs(Effect.logInfo("client", "connected"), { peer: "[::1]:5", n: 3 })
      )
      assert.deepStrictEqual(got, ["2026-01-31 12:00:00.000Z  INFO  client connected n=3 peer=[::1]:5"])
    })
  )

  it.effect("has its message in one column, whatever the level", () =>
    Effect.gen(function* () {
      const all = [Effect.logDebug("m"), Effect.logInfo("m"), Effect.logWarning("m"), Effect.logError("m")]
      const got = yield* lines(text, Effect.all([...all, Effect.logFatal("m")], { discard: true }), "debug")
      assert.deepStrictEqual(
        got.map((line) => line.slice(24)),
        [" DEBUG  m", "  INFO  m", "  WARN  m", " ERROR  m", " FATAL  m"]
      )
    })
  )

  it.effect("quotes values with spaces, quotes, equals signs or control characters", () =>
    Effect.gen(function* () {
      const values = { a: "two words", b: 'say "x"', c: "", d: "a=b", e: "x\ny", f: "\u001b[2J" }
      const [got] = yield* lines(text, Effect.annotateLogs(Effect.logInfo("m"), values))
      assert.strictEqual(got?.slice(32), String.raw`m a="two words" b="say \"x\"" c="" d="a=b" e="x\ny" f="\u001b[2J"`)
    })
  )

  it.effect.prop(
    "is one line without control characters, whatever is logged",
    [value, FastCheck.dictionary(FastCheck.string(), value), FastCheck.boolean()],
    ([message, annotations, colors]) =>
      Effect.gen(function* () {
        const effect = Effect.annotateLogs(Effect.logInfo(message), annotations)
        const got = yield* lines(LogLine.text({ colors }), effect)
        assert.strictEqual(got.length, 1)
        // oxlint-disable-next-line no-control-regex
        assert.notMatch(got.join().replace(/\u001b\[32m INFO\u001b\[0m/, ""), /[\p{Cc}\u2028\u2029]/u)
      })
  )

  it.effect("has the cause of a failure, and its stack only at level debug", () =>
    Effect.gen(function* () {
      const failing = Effect.die(new Error("no\nroute")).pipe(
        Effect.catchAllCause((cause) => Effect.logError("lost", cause))
      )
      const [terse] = yield* lines(text, failing)
      assert.strictEqual(terse?.slice(25), String.raw`ERROR  lost cause="no\nroute"`)
      const [long] = yield* lines(text, failing, "debug")
      assert.match(long ?? "", /^[^\n]* cause="no\\nroute" stack="Error: no\\nroute\\n {4}at [^\n]*$/)
    })
  )

  it.effect("shows the message of a logged error, and names an interruption", () =>
    Effect.gen(function* () {
      const interrupted = Effect.interrupt.pipe(Effect.catchAllCause((cause) => Effect.logInfo("ended", cause)))
      const got = yield* lines(text, Effect.zipRight(Effect.logInfo(new Error("no route")), interrupted))
      assert.deepStrictEqual(
        got.map((line) => line.slice(32)),
        ["no route", "ended cause=interrupted"]
      )
    })
  )

  it.effect("has colours only when asked for", () =>
    Effect.gen(function* () {
      const [got] = yield* lines(LogLine.text({ colors: true }), Effect.logWarning("m"))
      assert.strictEqual(got, "2026-01-31 12:00:00.000Z \u001b[33m WARN\u001b[0m  m")
    })
  )

  it.effect("does not show redacted values", () =>
    Effect.gen(function* () {
      const key = Redacted.make("hunter2")
      const effect = Effect.annotateLogs(Effect.logInfo("m", key, { key }), { key, deep: { key } })
      assert.notInclude((yield* lines(text, effect)).join(), "hunter2")
      assert.notInclude((yield* lines(LogLine.json, effect)).join(), "hunter2")
    })
  )

  it.effect("has the duration of a log span", () =>
    Effect.gen(function* () {
      const effect = Effect.withLogSpan(Effect.zipRight(TestClock.adjust("12 millis"), Effect.logInfo("m")), "dial")
      assert.match((yield* lines(text, effect)).join(), /m dial=12ms$/)
    })
  )
})

describe("a line of JSON", () => {
  it.effect("has the time, the level, the message and the annotations", () =>
    Effect.gen(function* () {
      const annotations = { peer: "a b", n: 3, up: true, time: "mine" }
      const [got = ""] = yield* lines(LogLine.json, Effect.annotateLogs(Effect.logWarning("a\nb"), annotations))
      assert.strictEqual(
        got,
        String.raw`{"time":"2026-01-31T12:00:00.000Z","level":"warn","message":"a\nb","n":3,"peer":"a b","time_":"mine","up":true}`
      )
    })
  )

  it.effect.prop(
    "is one line that parses, whatever is logged",
    [value, FastCheck.dictionary(FastCheck.string(), value)],
    ([message, annotations]) =>
      Effect.gen(function* () {
        const [got = ""] = yield* lines(LogLine.json, Effect.annotateLogs(Effect.logInfo(message), annotations))
        assert.notMatch(got, /[\p{Cc}\u2028\u2029]/u)
        assert.containsAllKeys(JSON.parse(got), [
          "time",
          "level",
          "message",
          ...Object.keys(annotations).map((key) => (["time", "level", "message"].includes(key) ? `${key}_` : key))
        ])
      })
  )
})

describe("the level", () => {
  it("follows the log parameter of URLs, where event logs like info", () => {
    assert.deepStrictEqual(LogLine.Level.literals.map(LogLine.minimum), [
      LogLevel.None,
      LogLevel.Debug,
      LogLevel.Info,
      LogLevel.Warning,
      LogLevel.Error,
      LogLevel.Info
    ])
  })

  it.effect("none logs nothing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* lines(text, Effect.logFatal("m"), "none"), [])
    })
  )
})
