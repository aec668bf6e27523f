/**
 * A tunnel written as the texts of its URLs, drawn over all parameters that fit each other, and a calm world for it.
 *
 * `run` returns the laws that were broken for visitors, in words.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Address from "../../../src/core/Address.js"
import * as Frame from "../../../src/wire/Frame.js"
import * as ProxyHeader from "../../../src/wire/ProxyHeader.js"
import * as SimCertificates from "../../../src/testing/SimCertificates.js"
import type * as SimNetwork from "../../../src/testing/SimNetwork.js"
import * as Transport from "../../../src/transport/Transport.js"
import * as TunnelUrl from "../../../src/url/TunnelUrl.js"
import { equal, readAll, utf8 } from "../../Bytes.js"
import * as DatagramVisit from "./DatagramVisit.js"
import * as TunnelHost from "./TunnelHost.js"
import * as Simulated from "../../Simulated.js"

/** A command URL in its parts, each as it is written. */
export interface Url {
  readonly role: "server" | "client"
  /** Percent-encoded, and nothing where there is none. */
  readonly key: string
  readonly tunnel: string
  readonly targets: ReadonlyArray<string>
  readonly query: ReadonlyArray<readonly [name: string, value: string]>
}

export const textOf = ({ key, query, role, targets, tunnel }: Url): string => {
  const userinfo = key === "" ? "" : `${key}@`
  const pairs = query.map(([name, value]) => `${name}=${value}`)
  return `${role}://${userinfo}${tunnel}/${targets.join(",")}${pairs.length === 0 ? "" : `?${pairs.join("&")}`}`
}

/** A target that serves, one whose host serves UDP only, one whose name is unknown, one that drops every packet. */
type Life = "alive" | "closed" | "unknown" | "blackhole"

interface TcpVisit {
  readonly arrivesMillis: number
  readonly length: number
  /** The PROXY header that it sends with `proxy-in=1`. */
  readonly header: { readonly version: 1 | 2; readonly endpoints: Option.Option<ProxyHeader.Endpoints> }
}

export interface Pair {
  readonly seed: number
  readonly link: SimNetwork.Link
  /** Nothing for single-end forwarding. */
  readonly server: Url | undefined
  readonly client: Url
  /** Whether the texts are what `TunnelUrl.format` makes of them. */
  readonly formatted: boolean
  readonly receiver: "server" | "client"
  readonly lives: ReadonlyArray<Life>
  readonly tcp: ReadonlyArray<TcpVisit>
  readonly udp: ReadonlyArray<DatagramVisit.DatagramVisit>
}

const hosts = { server: "10.0.0.1", client: "10.0.0.2", visitor: "10.0.0.5" } as const
const tunnelPort = 10101
const visitPort = 8080
const targetHosts = ["10.0.1.1", "10.0.1.2", "10.0.1.3"]
const nowhere = "unknown.example"

const { boolean, constant, constantFrom, integer, record, tuple } = FastCheck

const ip = FastCheck.oneof(
  FastCheck.ipV4(),
  integer({ min: 1, max: 0xffff }).map((group) => `2001:db8::${group.toString(16)}`)
)
const endpoint = tuple(ip, integer({ min: 1, max: 65_535 })).map(([host, port]) => Address.make(host, port))
const tcpVisit: FastCheck.Arbitrary<TcpVisit> = record({
  arrivesMillis: FastCheck.oneof(constant(0), integer({ min: 0, max: 3000 })),
  length: FastCheck.oneof(constantFrom(0, 1, 20), integer({ min: 0, max: 20_000 })),
  header: record({
    version: constantFrom(1 as const, 2 as const),
    endpoints: FastCheck.option(record({ source: endpoint, destination: endpoint }), { freq: 5 }).map(
      Option.fromNullable
    )
  })
})
const udpVisit = DatagramVisit.arbitrary({ latestMillis: 3000, maxDatagrams: 8 })

/** Some of the parameters, each in the text, or left to its default. */
const some = (values: Readonly<Record<string, FastCheck.Arbitrary<string>>>) =>
  tuple(
    ...Object.entries(values).map(([name, value]) =>
      FastCheck.option(
        value.map((value) => [name, value] as const),
        { freq: 2 }
      )
    )
  ).map((pairs) => pairs.filter((pair) => pair !== null))

const common = (visitors: number) =>
  some({
    log: constantFrom("none", "debug", "info", "warn", "error", "event"),
    read: constantFrom("0", "30s", "1h30m", "45000ms"),
    rate: constantFrom("0", "1", "7", "1000"),
    // UDP gets two thirds of them.
    slot: constantFrom("0", String(2 * visitors), "1000000"),
    proxy: constantFrom("0", "1", "2"),
    "proxy-in": constantFrom("0", "1"),
    lb: constantFrom("rr", "least", "hash"),
    check: constantFrom("0", "100ms", "10s"),
    cc: constantFrom("auto", "bbr")
  })

/** Where a side listens: its own address, or all of them. */
const here = (host: string, port: number) => constantFrom(`${host}:${port}`, `:${port}`, `0.0.0.0:${port}`)

const shuffled = <A>(values: ReadonlyArray<A>) =>
  FastCheck.shuffledSubarray([...values], { minLength: values.length, maxLength: values.length })

const lives: FastCheck.Arbitrary<ReadonlyArray<Life>> = FastCheck.array(
  constantFrom<Life>("alive", "closed", "unknown", "blackhole"),
  { maxLength: 2 }
).chain((others) => shuffled<Life>(["alive", ...others]))

const plan = record({
  seed: integer({ min: 0, max: 1_000_000 }),
  flow: constantFrom("server", "client", "alone"),
  link: record({
    latency: constantFrom(0, 1, 20),
    jitter: constantFrom(0, 0, 10),
    window: integer({ min: 1, max: 16 }),
    segment: constantFrom(100, 700, 65_536)
  }),
  key: FastCheck.oneof(constant(""), FastCheck.fullUnicodeString({ minLength: 1 }).map(encodeURIComponent)),
  serverTls: constantFrom(0, 1, 2),
  clientTls: constantFrom(0, 1, 2),
  formatted: boolean(),
  /** Whether a mode is left to be found out. */
  autos: tuple(boolean(), boolean()),
  /** Whether the target has the number of the tunnel port, on another host. */
  samePort: boolean(),
  lives,
  tcp: FastCheck.array(tcpVisit, { minLength: 1, maxLength: 6 }),
  udp: FastCheck.array(udpVisit, { maxLength: 3 })
})

export const pair: FastCheck.Arbitrary<Pair> = plan.chain((plan) => {
  const { autos, clientTls, flow, key, lives, samePort, serverTls, tcp } = plan
  const targetPort = samePort ? tunnelPort : 80
  const dialled = lives.map((life, at) => `${life === "unknown" ? `${at}.${nowhere}` : targetHosts[at]}:${targetPort}`)
  const visitors = tcp.length + plan.udp.length
  const [serverAuto, clientAuto] = autos
  const serverOnly = [
    ["mode", serverAuto ? "0" : flow === "server" ? "1" : "2"],
    ["tls", String(serverTls)],
    ...(serverTls === 2
      ? [
          ["crt", "chain.pem"],
          ["key", "key%20file.pem"]
        ]
      : [])
  ] as const
  const alone = flow === "alone"
  const clientOnly = [
    ["mode", clientAuto ? "0" : alone ? "1" : "2"],
    ["tls", alone ? (clientAuto ? String(clientTls) : "0") : String(Math.min(clientTls, serverTls))],
    ...(serverTls === 2 ? [["ca", "ca.pem"]] : [])
  ] as const
  const query = (
    own: ReadonlyArray<ReadonlyArray<string>>,
    more: FastCheck.Arbitrary<ReadonlyArray<readonly [string, string]>>
  ) =>
    tuple(common(visitors), more).chain(([all, more]) =>
      shuffled([...own.map(([name = "", value = ""]) => [name, value] as const), ...all, ...more])
    )
  const count = constantFrom("1", "3", "24")
  const server = tuple(
    here(hosts.server, tunnelPort),
    flow === "server" ? here(hosts.server, visitPort).map((one) => [one]) : constant(dialled),
    query(serverOnly, some({ max: count }))
  ).map(([tunnel, targets, query]): Url => ({ role: "server", key, tunnel, targets, query }))
  const client = tuple(
    // An empty host means loopback to a side that dials, and every address to one that listens.
    alone
      ? here(hosts.client, visitPort).filter((at) => !clientAuto || !at.startsWith(":"))
      : constant(`${hosts.server}:${tunnelPort}`),
    flow === "client" ? here(hosts.client, samePort ? tunnelPort : visitPort).map((one) => [one]) : constant(dialled),
    query(clientOnly, some({ min: count }))
  ).map(([tunnel, targets, query]): Url => ({ role: "client", key, tunnel, targets, query }))
  return tuple(server, client).map(([server, client]): Pair => ({
    seed: plan.seed,
    link: plan.link,
    server: alone ? undefined : server,
    client,
    formatted: plan.formatted,
    receiver: flow === "server" ? "server" : "client",
    lives,
    tcp,
    // What is sent where nothing arrives is not answered.
    udp: lives.includes("blackhole") ? [] : plan.udp
  }))
})

const valueOf = ({ query }: Url, name: string): string => query.find(([other]) => other === name)?.[1] ?? "0"

const issuer = "authority of the pair"
const certificate = SimCertificates.issue({ serial: "pair", issuer, names: [hosts.server], begins: 0, expires: 1e12 })
const files = {
  "chain.pem": certificate.chain,
  "key file.pem": `-----BEGIN PRIVATE KEY-----\n${btoa(certificate.fingerprint)}\n-----END PRIVATE KEY-----\n`,
  "ca.pem": SimCertificates.authority(issuer)
}

const question = (id: number, length: number): Uint8Array =>
  Uint8Array.from({ length: length + 1 }, (_, at) => (at === 0 ? id : id * 31 + at * 7) & 0xff)
const answerTo = (question: Uint8Array): Uint8Array => Frame.concat([utf8("re:"), question.toReversed()])
/** What a visitor's way looked like from its target. */
interface Seen {
  readonly id: number
  readonly question: Uint8Array
  readonly header: ProxyHeader.Decoded | undefined
}

/** Answers each question at its half-close. A connection without a byte is a health check. */
const serveTarget = (at: Address.Address, proxied: boolean, seen: Array<Seen>) =>
  Effect.gen(function* () {
    const transport = yield* Transport.Transport
    const listener = yield* transport.listen(at)
    const answer = (connection: Transport.Connection) =>
      Effect.gen(function* () {
        const bytes = yield* readAll(connection)
        if (bytes.length === 0) return
        const header = proxied ? ProxyHeader.decode(bytes) : undefined
        const question = bytes.subarray(header?._tag === "Header" ? header.length : 0)
        seen.push({ id: question[0] ?? -1, question, header })
        yield* connection.write(answerTo(question))
        yield* connection.end
      }).pipe(Effect.ignore)
    yield* Effect.forkScoped(Transport.serve(listener, answer))
  })

const program = (pair: Pair, network: SimNetwork.SimNetwork) =>
  Effect.gen(function* () {
    const broken: Array<string> = []
    const { client, lives, receiver, server } = pair
    const receiving = receiver === "server" && server !== undefined ? server : client
    const dialling = receiver === "client" && server !== undefined ? server : client
    const dialler = dialling.role
    const visitorsCome =
      server !== undefined && receiver === "client" ? Number(client.targets[0]?.split(":").at(-1)) : visitPort
    const to = Address.make(hosts[receiver], visitorsCome)
    const proxy = valueOf(dialling, "proxy")
    const proxyIn = valueOf(receiving, "proxy-in") === "1"
    const targetPort = Number(dialling.targets[0]?.split(":").at(-1))

    const tcpSeen: Array<Seen> = []
    const udpSeen = lives.map(() => new Map<string, number>())
    for (const [at, life] of lives.entries()) {
      const host = targetHosts[at] ?? ""
      if (life === "unknown") continue
      const transport = network.host(host)
      const where = Address.make(host, targetPort)
      if (life !== "closed") yield* Effect.provide(serveTarget(where, proxy !== "0", tcpSeen), transport)
      if (life === "blackhole") yield* network.partition(hosts[dialler], host)
      const arrivals = udpSeen[at] ?? new Map<string, number>()
      yield* Effect.forkScoped(Effect.provide(DatagramVisit.serve(where, arrivals), transport))
    }

    const start = (url: Url, seed: number) => {
      const text = textOf(url)
      const formatted = pair.formatted
        ? TunnelUrl.format(Either.getOrThrow(TunnelUrl.parse(text)), { key: "shown" })
        : text
      const settings = { shutdownTimeout: Duration.seconds(2) }
      return TunnelHost.start({ transport: network.host(hosts[url.role]), text: formatted, seed, files, settings })
    }
    const tunnels = [yield* start(client, pair.seed * 2)]
    if (server !== undefined) tunnels.push(yield* start(server, pair.seed * 2 + 1))
    for (const tunnel of tunnels) {
      const ready = yield* Effect.timeoutOption(tunnel.ready, "1 minute")
      if (Option.isNone(ready)) broken.push(`the ${tunnel.config._tag} does not serve after a minute`)
    }
    if (broken.length > 0) return broken

    const locals = new Map<number, Address.Address>()
    const visit = ({ arrivesMillis, length, header }: TcpVisit, id: number) =>
      Effect.gen(function* () {
        yield* Effect.sleep(arrivesMillis)
        const transport = yield* Transport.Transport
        const connection = yield* transport.connect(to)
        locals.set(id, connection.local)
        if (proxyIn) {
          const unknown = { source: Address.make("unknown", 1), destination: Address.make("unknown", 1) }
          const endpoints = Option.getOrElse(header.endpoints, () => unknown)
          yield* connection.write(ProxyHeader.encode(header.version, endpoints))
        }
        yield* connection.write(question(id, length))
        yield* connection.end
        const answer = yield* readAll(connection)
        if (!equal(answer, answerTo(question(id, length)))) broken.push(`visitor ${id} got a wrong answer`)
      }).pipe(
        Effect.scoped,
        Effect.timeout("2 minutes"),
        Effect.catchAll((error) => Effect.sync(() => broken.push(`visitor ${id} was not served: ${error.message}`)))
      )
    const [, datagrams] = yield* Effect.all(
      [
        Effect.forEach(pair.tcp, visit, { concurrency: "unbounded" }),
        Effect.forEach(pair.udp, (visit, id) => DatagramVisit.visit(to, id, visit), { concurrency: "unbounded" })
      ],
      { concurrency: 2 }
    ).pipe(Effect.provide(network.host(hosts.visitor)))

    for (const [id, { length, header: sent }] of pair.tcp.entries()) {
      const mine = tcpSeen.filter((seen) => seen.id === id)
      if (mine.length !== 1) broken.push(`visitor ${id} reached targets ${mine.length} times`)
      for (const { header, question: received } of mine) {
        if (!equal(received, question(id, length))) broken.push(`the target received other bytes of visitor ${id}`)
        if (proxy === "0") continue
        const own = { source: locals.get(id), destination: to }
        const wanted = proxyIn ? Option.getOrElse(sent.endpoints, () => own) : own
        const got = header?._tag === "Header" ? Option.getOrUndefined(header.endpoints) : undefined
        const [found, expected] = [got, wanted].map((ends) => `${String(ends?.source)} to ${String(ends?.destination)}`)
        if (found !== expected) broken.push(`the header of visitor ${id} has ${found}, not ${expected}`)
      }
    }
    for (const [at, { answered, broken: wrong, sent }] of datagrams.entries()) {
      broken.push(...wrong)
      if (answered < sent) broken.push(`${sent - answered} datagrams of visitor ${at} got no answer`)
    }
    for (const [id, { sizes }] of pair.udp.entries()) {
      const reached = udpSeen.filter((arrivals) => [...arrivals.keys()].some((name) => name.startsWith(`${id}/`)))
      const numbers = reached.flatMap((arrivals) =>
        [...arrivals.entries()].flatMap(([name, times]) =>
          name.startsWith(`${id}/`) ? Array.from({ length: times }, () => Number(name.split("/")[1])) : []
        )
      )
      if (reached.length !== 1) broken.push(`UDP visitor ${id} reached ${reached.length} targets`)
      const inOrder = pair.link.jitter === 0 ? numbers : numbers.toSorted((left, right) => left - right)
      if (inOrder.join() !== [...sizes.keys()].join())
        broken.push(`datagrams of visitor ${id} came as ${numbers.join()}`)
    }
    return broken
  })

export const run = (pair: Pair): ReadonlyArray<string> =>
  Simulated.run({ seed: pair.seed, link: pair.link }, ({ network }) => program(pair, network))
