/**
 * The timeouts and sizes of a tunnel that are no part of its URL: the `NP_*` environment variables.
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
import { datagramSizeLimit } from "./Transport.js"
import * as GoDuration from "../core/GoDuration.js"

/** Variables that cannot be used; a sentence for each, with its name, its value and what is accepted. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  problems: Schema.NonEmptyArray(Schema.String)
}) {
  override get message(): string {
    return this.problems.join("; ")
  }
}

export class Settings extends Context.Tag("nodepass/Settings")<
  Settings,
  {
    /** Launches that may wait to be acknowledged, and signals to be handled, at most; more wait to come in. Defaults to 65536. */
    readonly signalQueue: number
    /** How long a peer may take to agree on a session, or to name a pool connection. Defaults to 10 s. */
    readonly handshakeTimeout: Duration.Duration
    /** How long connecting may take, to the server and to a target. Defaults to 30 s. */
    readonly tcpDialTimeout: Duration.Duration
    /** Bytes that a direction of a connection may hold in this process at most. Defaults to 262144. */
    readonly bufferLimit: number
    /** Bytes in a datagram at most. Defaults to 16384; UDP itself has room for 65507. */
    readonly datagramLimit: number
    /** How long finding a UDP target may take. Defaults to 10 s. */
    readonly udpDialTimeout: Duration.Duration
    /** How long a visitor may wait for a pool connection. Defaults to 30 s. */
    readonly poolGetTimeout: Duration.Duration
    /** Shortest interval between two rounds of filling the pool. Defaults to 100 ms. */
    readonly minPoolInterval: Duration.Duration
    /** Longest interval between two rounds of filling the pool; not below the shortest. Defaults to 1 s. */
    readonly maxPoolInterval: Duration.Duration
    /** Interval of pings and checkpoints. Defaults to 5 s. */
    readonly reportInterval: Duration.Duration
    /** Longest wait between two attempts to connect. Defaults to 3 s. */
    readonly serviceCooldown: Duration.Duration
    /** How long a session waits for its control connection to come back. Defaults to 30 s. */
    readonly resumeGrace: Duration.Duration
    /** How long a key of a session seals what is said, on the control connection and on those of the pool. Defaults to 1 h. */
    readonly keyLifetime: Duration.Duration
    /** How long the tunnel key of before is honoured once another takes its place. Defaults to 1 h. */
    readonly keyGrace: Duration.Duration
    /** Where a server that stops leaves its session for the next one. Defaults to nowhere. */
    readonly stateDirectory: Option.Option<string>
    /** How long visitors being served may take to finish once the tunnel stops. Defaults to 5 s. */
    readonly shutdownTimeout: Duration.Duration
    /** Longest time between two readings of a certificate's files. Defaults to 1 h. */
    readonly reloadInterval: Duration.Duration
    /**
     * Who moves the bytes of TCP visitors: this process, or the kernel. Defaults to `auto`.
     *
     * `kernel` and `auto` are the kernel where it can be had; where it cannot, `kernel` warns of it.
     */
    readonly relay: "portable" | "kernel" | "auto"
    /** Threads that serve the kernel relay at most. Defaults to one for each core, and four where there are more. */
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

/** The defaults, but for the options given. */
export const layer = (options?: Partial<Settings["Type"]>): Layer.Layer<Settings> =>
  Layer.succeed(Settings, { ...defaults, ...options })

/** The settings as the `ConfigProvider` has them, with a default for each variable that is not set. */
export const config: Config.Config<Settings["Type"]> = Config.suspend(() =>
  Config.all({
    signalQueue: count("NP_SEMAPHORE_LIMIT", defaults.signalQueue, 1_000_000),
    handshakeTimeout: duration("NP_HANDSHAKE_TIMEOUT", defaults.handshakeTimeout),
    tcpDialTimeout: duration("NP_TCP_DIAL_TIMEOUT", defaults.tcpDialTimeout),
    bufferLimit: count("NP_TCP_DATA_BUF_SIZE", defaults.bufferLimit, 67_108_864),
    datagramLimit: count("NP_UDP_DATA_BUF_SIZE", defaults.datagramLimit, datagramSizeLimit),
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
    relay: variable("NP_RELAY", defaults.relay, "portable, kernel or auto", Schema.decodeUnknownOption(Way)),
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

/** Reads `config` once, when the layer is built; the provider is the environment unless the host has set another. */
export const layerFromEnv: Layer.Layer<Settings, SettingsError> = Layer.effect(
  Settings,
  Effect.mapError(config, (error) => new SettingsError({ problems: problems(error) }))
)

// internal

const problems = (error: ConfigError.ConfigError): readonly [string, ...Array<string>] =>
  error._op === "And" || error._op === "Or" ? [...problems(error.left), ...problems(error.right)] : [error.message]

const Way = Schema.Literal("portable", "kernel", "auto")

/** Node's timers cannot wait longer. */
const longest = Duration.days(24)

const count = (name: string, initial: number, most: number): Config.Config<number> =>
  variable(name, initial, expectedCount(most), countUpTo(most))

const expectedCount = (most: number) => `a whole number from 1 to ${most}`
const countUpTo = (most: number) => (text: string) =>
  /^[1-9]\d{0,8}$/.test(text) && Number(text) <= most ? Option.some(Number(text)) : Option.none()

const duration = (name: string, initial: Duration.Duration): Config.Config<Duration.Duration> =>
  variable(name, initial, "a duration above 0 and up to 576h, such as 30s, 1h30m, 250ms", (text) =>
    Option.filter(GoDuration.fromText(text), Duration.between({ minimum: Duration.nanos(1n), maximum: longest }))
  )

const variable = <A>(
  name: string,
  initial: A,
  expected: string,
  decode: (text: string) => Option.Option<A>
): Config.Config<A> =>
  Config.string(name).pipe(
    Config.mapOrFail((text) =>
      Option.match(decode(text), { onNone: () => refuse(name, text, expected), onSome: (value) => Either.right(value) })
    ),
    Config.withDefault(initial)
  )

const refuse = (name: string, value: string, expected: string): Either.Either<never, ConfigError.ConfigError> =>
  Either.left(ConfigError.InvalidData([name], `${name}=${JSON.stringify(value).slice(1, -1)}: expected ${expected}`))
