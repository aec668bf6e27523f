import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as GoDuration from "../../src/core/GoDuration.js"
import * as Option from "effect/Option"
import * as Settings from "../../src/transport/Settings.js"

const variables = {
  handshakeTimeout: "NP_HANDSHAKE_TIMEOUT",
  tcpDialTimeout: "NP_TCP_DIAL_TIMEOUT",
  poolGetTimeout: "NP_POOL_GET_TIMEOUT",
  minPoolInterval: "NP_MIN_POOL_INTERVAL",
  maxPoolInterval: "NP_MAX_POOL_INTERVAL",
  reportInterval: "NP_REPORT_INTERVAL",
  serviceCooldown: "NP_SERVICE_COOLDOWN",
  shutdownTimeout: "NP_SHUTDOWN_TIMEOUT",
  udpDialTimeout: "NP_UDP_DIAL_TIMEOUT",
  resumeGrace: "NP_RESUME_GRACE",
  reloadInterval: "NP_RELOAD_INTERVAL",
  keyLifetime: "NP_KEY_LIFETIME",
  keyGrace: "NP_KEY_GRACE"
} as const

const read = (env: Readonly<Record<string, string>>) =>
  Settings.Settings.pipe(
    Effect.provide(Settings.layerFromEnv),
    Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env))))
  )

const refusal = (env: Readonly<Record<string, string>>) => Effect.map(Effect.flip(read(env)), ({ message }) => message)

const millis = FastCheck.integer({ min: 1, max: 10 ** 9 })

describe("Settings", () => {
  it.effect("an empty environment has the defaults", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* read({}), Settings.defaults)
    })
  )

  it.effect.prop(
    "each variable sets its own setting and no other",
    [FastCheck.constantFrom(...(["handshakeTimeout", "reportInterval", "maxPoolInterval"] as const)), millis],
    ([field, millis]) =>
      Effect.gen(function* () {
        const value = Duration.millis(millis + 100)
        const settings = yield* read({ [variables[field]]: GoDuration.toText(value) })
        assert.deepStrictEqual(settings, { ...Settings.defaults, [field]: value })
      })
  )

  it.effect("every documented variable is read", () =>
    Effect.gen(function* () {
      const durations = Object.fromEntries(Object.values(variables).map((name) => [name, "123ms"]))
      const settings = yield* read({
        ...durations,
        NP_SEMAPHORE_LIMIT: "7",
        NP_UDP_DATA_BUF_SIZE: "65507",
        NP_TCP_DATA_BUF_SIZE: "1",
        NP_RELAY: "portable",
        NP_REACTORS: "3",
        NP_STATE_DIR: "/var/lib/nodepass"
      })
      const each = Object.fromEntries(Object.keys(variables).map((field) => [field, Duration.millis(123)]))
      assert.deepStrictEqual<unknown>(settings, {
        signalQueue: 7,
        stateDirectory: Option.some("/var/lib/nodepass"),
        datagramLimit: 65_507,
        bufferLimit: 1,
        relay: "portable",
        reactors: Option.some(3),
        ...each
      })
    })
  )

  it.effect("an invalid value is refused in one line with the variable, the value and what is accepted", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* refusal({ NP_REPORT_INTERVAL: "5" }),
        "NP_REPORT_INTERVAL=5: expected a duration above 0 and up to 576h, such as 30s, 1h30m, 250ms"
      )
      assert.strictEqual(
        yield* refusal({ NP_SEMAPHORE_LIMIT: "0" }),
        "NP_SEMAPHORE_LIMIT=0: expected a whole number from 1 to 1000000"
      )
      assert.strictEqual(yield* refusal({ NP_RELAY: "splice" }), "NP_RELAY=splice: expected portable, kernel or auto")
    })
  )

  it.effect.prop(
    "any value is accepted, or refused in one line that names the variable",
    [
      FastCheck.constantFrom(...Object.values(variables), "NP_SEMAPHORE_LIMIT", "NP_RELAY", "NP_REACTORS"),
      FastCheck.string()
    ],
    ([name, value]) =>
      Effect.gen(function* () {
        const message = yield* Effect.match(read({ [name]: value }), {
          onFailure: ({ message }) => message,
          onSuccess: () => `${name}=`
        })
        assert.isTrue(message.startsWith(`${name}=`))
        assert.notInclude(message, "\n")
      })
  )

  it.effect("0, a negative duration and one above the longest timer are refused", () =>
    Effect.gen(function* () {
      for (const value of ["0", "0s", "-1s", "577h", ""]) {
        assert.match(yield* refusal({ NP_TCP_DIAL_TIMEOUT: value }), /^NP_TCP_DIAL_TIMEOUT=/)
      }
    })
  )

  it.effect("the error names every invalid variable, not only the first", () =>
    Effect.gen(function* () {
      const { problems } = yield* Effect.flip(
        read({ NP_REPORT_INTERVAL: "soon", NP_SEMAPHORE_LIMIT: "many", NP_SHUTDOWN_TIMEOUT: "1s" })
      )
      assert.sameMembers(
        problems.map((line) => line.split(":")[0] ?? ""),
        ["NP_REPORT_INTERVAL=soon", "NP_SEMAPHORE_LIMIT=many"]
      )
    })
  )

  it.effect("a shortest pool interval above the longest is refused", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        yield* refusal({ NP_MIN_POOL_INTERVAL: "1.5s" }),
        "NP_MIN_POOL_INTERVAL=1.5s: expected at most NP_MAX_POOL_INTERVAL, 1s"
      )
      yield* read({ NP_MIN_POOL_INTERVAL: "1s" })
    })
  )

  it.effect("a host sets some settings and gets the defaults of the others", () =>
    Effect.gen(function* () {
      const options = { signalQueue: 3, reportInterval: Duration.minutes(1) }
      const settings = yield* Effect.provide(Settings.Settings, Settings.layer(options))
      assert.deepStrictEqual(settings, { ...Settings.defaults, ...options })
    })
  )
})
