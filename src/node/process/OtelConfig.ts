/**
 * The standard `OTEL_*` environment variables, as far as this program follows them: what is exported, where to, and how often.
 *
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Schema from "effect/Schema"

/** Where one kind of telemetry is sent. */
export interface Target {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly interval: Duration.Duration
}

const Protocol = Schema.Literal("http/json", "http/protobuf")

export interface OtelConfig {
  /** `None`: this kind is not exported. */
  readonly traces: Option.Option<Target>
  readonly metrics: Option.Option<Target>
  readonly logs: Option.Option<Target>
  readonly protocol: typeof Protocol.Type
  /** How long one request may take. */
  readonly timeout: Duration.Duration
  readonly serviceName: string
  readonly attributes: Readonly<Record<string, string>>
}

/** `None` unless an endpoint is set. A variable that is empty counts as not set. */
export const config: Config.Config<Option.Option<OtelConfig>> = Config.suspend(() =>
  Config.map(
    Config.all({
      disabled: Config.map(
        text("OTEL_SDK_DISABLED"),
        Option.exists((value) => value.toLowerCase() === "true")
      ),
      traces: target("traces", "OTEL_BSP_SCHEDULE_DELAY", 5000),
      metrics: target("metrics", "OTEL_METRIC_EXPORT_INTERVAL", 60_000),
      logs: target("logs", "OTEL_BLRP_SCHEDULE_DELAY", 1000),
      protocol: protocol(),
      timeout: millis("OTEL_EXPORTER_OTLP_TIMEOUT", 10_000),
      name: text("OTEL_SERVICE_NAME"),
      given: pairs("OTEL_RESOURCE_ATTRIBUTES")
    }),
    ({ disabled, given, name, ...rest }) => {
      const targets = [rest.traces, rest.metrics, rest.logs]
      if (disabled || targets.every(Option.isNone)) return Option.none()
      const { "service.name": inGiven = "nodepass", ...attributes } = given
      return Option.some({ ...rest, serviceName: Option.getOrElse(name, () => inGiven), attributes })
    }
  )
)

/** What is wrong, as one line: each variable and what is expected of it. */
export const explain = (error: ConfigError.ConfigError): string =>
  error._op === "And" || error._op === "Or" ? `${explain(error.left)}; ${explain(error.right)}` : error.message

// internal

const text = (name: string): Config.Config<Option.Option<string>> =>
  Config.map(Config.option(Config.string(name)), (value) =>
    Option.filter(
      Option.map(value, (value) => value.trim()),
      (value) => value !== ""
    )
  )

const target = (
  kind: "traces" | "metrics" | "logs",
  intervalName: string,
  interval: number
): Config.Config<Option.Option<Target>> => {
  const upper = kind.toUpperCase()
  return Config.map(
    Config.all({
      exporter: text(`OTEL_${upper}_EXPORTER`),
      base: address("OTEL_EXPORTER_OTLP_ENDPOINT"),
      own: address(`OTEL_EXPORTER_OTLP_${upper}_ENDPOINT`),
      headers: pairs("OTEL_EXPORTER_OTLP_HEADERS"),
      ownHeaders: pairs(`OTEL_EXPORTER_OTLP_${upper}_HEADERS`),
      interval: millis(intervalName, interval)
    }),
    ({ base, exporter, headers, interval, own, ownHeaders }) => {
      if (Option.contains(exporter, "none")) return Option.none()
      // The path belongs to the kind's own endpoint already.
      const url = Option.orElse(own, () => Option.map(base, (base) => `${base.replace(/\/+$/, "")}/v1/${kind}`))
      return Option.map(url, (url) => ({ url, headers: { ...headers, ...ownHeaders }, interval }))
    }
  )
}

const address = (name: string) =>
  checked(name, "an http:// or https:// URL", (value) =>
    /^https?:\/\/[^\s/]/i.test(value) ? Option.some(value) : Option.none()
  )

const millis = (name: string, initial: number): Config.Config<Duration.Duration> =>
  Config.map(
    checked(name, "a number of milliseconds from 1 to 86400000", (value) =>
      /^[1-9]\d{0,7}$/.test(value) && Number(value) <= 86_400_000 ? Option.some(Number(value)) : Option.none()
    ),
    (value) => Duration.millis(Option.getOrElse(value, () => initial))
  )

const protocol = (): Config.Config<OtelConfig["protocol"]> =>
  Config.map(
    checked("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json or http/protobuf", Schema.decodeUnknownOption(Protocol)),
    Option.getOrElse((): OtelConfig["protocol"] => "http/json")
  )

/** `a=b,c=d`, the values percent-encoded. */
const pairs = (name: string): Config.Config<Readonly<Record<string, string>>> =>
  Config.map(
    checked(name, "name=value pairs with commas between them, percent-encoded", (value) =>
      Option.map(
        Option.all(
          value
            .split(",")
            .filter((part) => part.trim() !== "")
            .map(pair)
        ),
        Record.fromEntries
      )
    ),
    Option.getOrElse(() => ({}))
  )

const pair = (text: string): Option.Option<readonly [name: string, value: string]> => {
  const [, name, value = ""] = /^\s*([^=\s]+)\s*=\s*(.*?)\s*$/.exec(text) ?? []
  return name === undefined ? Option.none() : Option.map(decode(value), (value) => [name, value] as const)
}

const decode = Option.liftThrowable((text: string) => decodeURIComponent(text))

/** A variable that must be as `read` has it; headers may be secret, so that the message does not have the value. */
const checked = <A>(
  name: string,
  expected: string,
  read: (value: string) => Option.Option<A>
): Config.Config<Option.Option<A>> =>
  Config.mapOrFail(text(name), (value) =>
    Option.match(value, {
      onNone: () => Either.right(Option.none()),
      onSome: (value) =>
        Option.match(read(value), {
          onNone: () => Either.left(ConfigError.InvalidData([name], `${name}: expected ${expected}`)),
          onSome: (read) => Either.right(Option.some(read))
        })
    })
  )
