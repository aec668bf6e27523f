/**
 * The timeouts and sizes of a tunnel that are not in its URL: the `NP_*` environment variables.
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { maxDatagramBytes } from "./Transport.js"
import * as GoDuration from "../core/GoDuration.js"

/** Variables with invalid values. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  /** One sentence for each variable: its name, its value and what is accepted. */
  problems: Schema.NonEmptyArray(Schema.String)
}) {
  override get message(): string {
    return this.problems.join("; ")
  }
}

export class Settings extends Context.Tag("nodepass/Settings")<
  Settings,
  {
    /** Maximum number of launches that wait for their acknowledgement, and of received signals that wait to be handled. Defaults to 65536. */
    readonly signalQueue: number
    /** Timeout of each step of a handshake. Defaults to 10 s. */
    readonly handshakeTimeout: Duration.Duration
    /** Timeout of connecting to the server, and to the target, all targets together. Defaults to 30 s. */
    readonly tcpDialTimeout: Duration.Duration
    /** Maximum number of bytes buffered for one direction of a connection. Defaults to 262144. */
    readonly bufferLimit: number
    /** Maximum size of a datagram in bytes. Defaults to 16384; UDP allows 65507. */
    readonly datagramLimit: number
    /** Timeout of resolving a UDP target. Defaults to 10 s. */
    readonly udpDialTimeout: Duration.Duration
    /** How long a visitor waits for a pool connection. Defaults to 30 s. */
    readonly poolGetTimeout: Duration.Duration
    /** Shortest interval between two steps of the pool policy. Defaults to 100 ms. */
    readonly minPoolInterval: Duration.Duration
    /** Longest interval between two steps of the pool policy, at least `minPoolInterval`. Defaults to 1 s. */
    readonly maxPoolInterval: Duration.Duration
    /** Interval of pings, and of checkpoints. Defaults to 5 s. */
    readonly reportInterval: Duration.Duration
    /** Longest delay between two attempts to connect. Defaults to 3 s. */
    readonly serviceCooldown: Duration.Duration
    /** How long a session without a control connection waits for the next one. Defaults to 30 s. */
    readonly resumeGrace: Duration.Duration
    /** How long a session key is used, on the control connection and for pool connections. Defaults to 1 h. */
    readonly keyLifetime: Duration.Duration
    /** How long the previous tunnel key is accepted after it was replaced. Defaults to 1 h. */
    readonly keyGrace: Duration.Duration
    /** Directory where each side keeps its session for its next process. Defaults to none: the session ends with the process. */
    readonly stateDirectory: Option.Option<string>
    /** How long visitors may take to finish when the tunnel stops. Defaults to 5 s. */
    readonly shutdownTimeout: Duration.Duration
    /** Longest interval between two readings of the certificate files. Defaults to 1 h. */
    readonly reloadInterval: Duration.Duration
    /**
     * What moves the bytes of TCP visitors: `portable` Node, `kernel` Linux. Defaults to `auto`.
     *
     * `kernel` and `auto` use Linux where it is available, else Node; `kernel` then logs a warning.
     */
    readonly relay: "portable" | "kernel" | "auto"
    /** Maximum number of threads of the kernel relay. Defaults to the number of cores, at most 4. */
    readonly reactors: Option.Option<number>
  }
>() {}

export const defaults: Settings["Type"] = {
  signalQueue: 65536,
  handshakeTimeout: Duration.seconds(10),
  tcpDialTimeout: Duration.seconds(30),
  bufferLimit: 262_144,
  datagramLimit: 16_384,
  udpDialTimeout: Duration.seconds(10),
  poolGetTimeout: Duration.seconds(30),
  minPoolInterval: Duration.millis(100),
  maxPoolInterval: Duration.seconds(1),
  reportInterval: Duration.seconds(5),
  serviceCooldown: Duration.seconds(3),
  resumeGrace: Duration.seconds(30),
  keyLifetime: Duration.hours(1),
  keyGrace: Duration.hours(1),
  stateDirectory: Option.none(),
  shutdownTimeout: Duration.seconds(5),
  reloadInterval: Duration.hours(1),
  relay: "auto",
  reactors: Option.none()
}

/** The given settings, and the defaults of the others. */
export const layer = (options?: Partial<Settings["Type"]>): Layer.Layer<Settings> =>
  Layer.succeed(Settings, { ...defaults, ...options })

/** The settings from the `ConfigProvider`, and the defaults of the variables that are not set. */
export const config: Config.Config<Settings["Type"]> = Config.suspend(() =>
  Config.all({
    signalQueue: count("NP_SEMAPHORE_LIMIT", defaults.signalQueue, 1_000_000),
    handshakeTimeout: duration("NP_HANDSHAKE_TIMEOUT", defaults.handshakeTimeout),
    tcpDialTimeout: duration("NP_TCP_DIAL_TIMEOUT", defaults.tcpDialTimeout),
    bufferLimit: count("NP_TCP_DATA_BUF_SIZE", defaults.bufferLimit, 67_108_864),
    datagramLimit: count("NP_UDP_DATA_BUF_SIZE", defaults.datagramLimit, maxDatagramBytes),
    udpDialTimeout: duration("NP_UDP_DIAL_TIMEOUT", defaults.udpDialTimeout),
    poolGetTimeout: duration("NP_POOL_GET_TIMEOUT", defaults.poolGetTimeout),
    minPoolInterval: duration("NP_MIN_POOL_INTERVAL", defaults.minPoolInterval),
    maxPoolInterval: duration("NP_MAX_POOL_INTERVAL", defaults.maxPoolInterval),
    reportInterval: duration("NP_REPORT_INTERVAL", defaults.reportInterval),
    serviceCooldown: duration("NP_SERVICE_COOLDOWN", defaults.serviceCooldown),
    resumeGrace: duration("NP_RESUME_GRACE", defaults.resumeGrace),
    keyLifetime: duration("NP_KEY_LIFETIME", defaults.keyLifetime),
    keyGrace: duration("NP_KEY_GRACE", defaults.keyGrace),
    stateDirectory: variable("NP_STATE_DIR", defaults.stateDirectory, "the path of a directory", (text) =>
      text === "" ? Option.none() : Option.some(Option.some(text))
    ),
    shutdownTimeout: duration("NP_SHUTDOWN_TIMEOUT", defaults.shutdownTimeout),
    reloadInterval: duration("NP_RELOAD_INTERVAL", defaults.reloadInterval),
    relay: variable("NP_RELAY", defaults.relay, "portable, kernel or auto", Schema.decodeUnknownOption(Relay)),
    reactors: variable("NP_REACTORS", defaults.reactors, expectedCount(256), (text) =>
      Option.map(countUpTo(256)(text), Option.some)
    )
  })
).pipe(
  Config.mapOrFail((settings) => {
    const [min, max] = [settings.minPoolInterval, settings.maxPoolInterval]
    return Duration.lessThanOrEqualTo(min, max)
      ? Either.right(settings)
      : refuse(
          "NP_MIN_POOL_INTERVAL",
          GoDuration.toText(min),
          `at most NP_MAX_POOL_INTERVAL, ${GoDuration.toText(max)}`
        )
  })
)

/** Reads `config` when the layer is built: from the environment, unless the host sets another `ConfigProvider`. */
export const layerFromEnv: Layer.Layer<Settings, SettingsError> = Layer.effect(
  Settings,
  Effect.mapError(config, (error) => new SettingsError({ problems: problems(error) }))
)

// internal

const problems = (error: ConfigError.ConfigError): readonly [string, ...Array<string>] =>
  error._op === "And" || error._op === "Or" ? [...problems(error.left), ...problems(error.right)] : [error.message]

const Relay = Schema.Literal("portable", "kernel", "auto")

/** Node's timers cannot wait longer. */
const maxDuration = Duration.days(24)

const count = (name: string, defaultValue: number, max: number): Config.Config<number> =>
  variable(name, defaultValue, expectedCount(max), countUpTo(max))

const expectedCount = (max: number) => `a whole number from 1 to ${max}`
const countUpTo = (max: number) => (text: string) =>
  /^[1-9]\d{0,8}$/.test(text) && Number(text) <= max ? Option.some(Number(text)) : Option.none()

const duration = (name: string, defaultValue: Duration.Duration): Config.Config<Duration.Duration> =>
  variable(name, defaultValue, "a duration above 0 and up to 576h, such as 30s, 1h30m, 250ms", (text) =>
    Option.filter(GoDuration.fromText(text), Duration.between({ minimum: Duration.nanos(1n), maximum: maxDuration }))
  )

const variable = <A>(
  name: string,
  defaultValue: A,
  expected: string,
  decode: (text: string) => Option.Option<A>
): Config.Config<A> =>
  Config.string(name).pipe(
    Config.mapOrFail((text) =>
      Option.match(decode(text), { onNone: () => refuse(name, text, expected), onSome: (value) => Either.right(value) })
    ),
    Config.withDefault(defaultValue)
  )

const refuse = (name: string, value: string, expected: string): Either.Either<never, ConfigError.ConfigError> =>
  Either.left(ConfigError.InvalidData([name], `${name}=${JSON.stringify(value).slice(1, -1)}: expected ${expected}`))
