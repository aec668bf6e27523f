/**
 * `Certificates` for simulations: made without delay, the same for the same seed, and with no real secrets.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as NodeCrypto from "node:crypto"
import { type Certificate, CertificateError, Certificates, type Files } from "../transport/Certificates.js"

/** The content of a simulated certificate. */
export interface Facts {
  /** Distinguishes it from others with the same names and dates. */
  readonly serial: string
  /** The authority that issued it. Defaults to none: it is self-signed. */
  readonly issuer?: string | undefined
  readonly names: ReadonlyArray<string>
  /** Epoch milliseconds; `0` is the start of the simulation. */
  readonly begins: number
  readonly expires: number
}

/** A certificate with this content. */
export const issue = (facts: Facts): Certificate => {
  const chain = pem("CERTIFICATE", encode(facts))
  return {
    chain,
    key: Redacted.make(pem("PRIVATE KEY", fingerprintOf(chain))),
    fingerprint: fingerprintOf(chain),
    names: facts.names,
    expires: facts.expires
  }
}

/** The PEM text of an authority. A client that trusts it trusts the certificates that it issued. */
export const authority = (name: string): string => pem("CERTIFICATE", `authority ${name}`)

/** The content of a certificate, or `None` when the text is not a certificate. */
export const read = (chain: string): Option.Option<Facts> => Option.flatMap(bodyOf("CERTIFICATE", chain), decode)

/** 64 lower-case hex digits. */
export const fingerprintOf = (chain: string): string => NodeCrypto.createHash("sha256").update(chain).digest("hex")

/** The files of one host. */
export interface Disk {
  /** Writes a file. `undefined` removes it. */
  readonly write: (file: string, text: string | undefined) => Effect.Effect<void>
  readonly layer: Layer.Layer<Certificates>
}

/** An empty disk. Self-signed certificates differ between hosts with different seeds. */
export const disk = (seed: number): Disk => {
  const files = new Map<string, string>()
  const watches = new Set<{ readonly files: Files; readonly changed: Effect.Latch }>()
  let serial = 0

  const open = (parameter: CertificateError["parameter"], file: string) =>
    Effect.suspend(() => {
      const text = files.get(file)
      return text === undefined
        ? Effect.fail(fail(parameter, file, "Unreadable", "cannot be read: no such file"))
        : Effect.succeed(text)
    })
  const certificates = Certificates.of({
    selfSigned: Effect.map(Clock.currentTimeMillis, (now) =>
      issue({ serial: `${seed}/${serial++}`, names: ["nodepass"], begins: now - hour, expires: now + 10 * year })
    ),
    load: ({ crt, key }) =>
      Effect.gen(function* () {
        const facts = read(yield* open("crt", crt))
        if (Option.isNone(facts)) return yield* fail("crt", crt, "NotPem", "holds no certificate in PEM")
        const own = bodyOf("PRIVATE KEY", yield* open("key", key))
        if (Option.isNone(own)) return yield* fail("key", key, "NotPem", "holds no private key in PEM")
        const certificate = issue(facts.value)
        if (own.value !== certificate.fingerprint) {
          return yield* fail("key", key, "KeyMismatch", `is not the key of the certificate in ${crt}`)
        }
        if (certificate.expires <= (yield* Clock.currentTimeMillis)) {
          return yield* fail("crt", crt, "Expired", "its certificate expired")
        }
        return certificate
      }),
    authorities: (file) =>
      Effect.flatMap(open("ca", file), (text) =>
        Option.isSome(bodyOf("CERTIFICATE", text))
          ? Effect.succeed([text])
          : Effect.fail(fail("ca", file, "NotPem", "holds no certificate in PEM"))
      ),
    changes: (files) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => {
            const watch = { files, changed: Effect.unsafeMakeLatch(false) }
            watches.add(watch)
            return watch
          }),
          (watch) => Effect.sync(() => watches.delete(watch))
        ),
        ({ changed }) => Effect.zipRight(changed.await, changed.close)
      )
  })
  return {
    write: (file, text) =>
      Effect.sync(() => {
        if (text === undefined) files.delete(file)
        else files.set(file, text)
        for (const { changed, files } of watches) {
          if (files.crt === file || files.key === file) changed.unsafeOpen()
        }
      }),
    layer: Layer.succeed(Certificates, certificates)
  }
}

/** `Certificates` of a host without files. */
export const layer = (seed: number): Layer.Layer<Certificates> => Layer.suspend(() => disk(seed).layer)

// internal

const hour = 3_600_000
const year = 365 * 24 * hour

const fail = (
  parameter: CertificateError["parameter"],
  file: string,
  reason: CertificateError["reason"],
  detail: string
) => new CertificateError({ parameter, file, reason, detail })

const pem = (label: string, body: string): string =>
  `-----BEGIN ${label}-----\n${Encoding.encodeBase64(body)}\n-----END ${label}-----\n`

const bodyOf = (label: string, text: string): Option.Option<string> => {
  const [, body] = new RegExp(`-----BEGIN ${label}-----\n(.*)\n-----END ${label}-----`).exec(text) ?? []
  return body === undefined ? Option.none() : Either.getRight(Encoding.decodeBase64String(body))
}

const Facts = Schema.parseJson(
  Schema.Struct({
    serial: Schema.String,
    issuer: Schema.optional(Schema.String),
    names: Schema.Array(Schema.String),
    begins: Schema.Number,
    expires: Schema.Number
  })
)
const encode = Schema.encodeSync(Facts)
const decode = Schema.decodeOption(Facts)
