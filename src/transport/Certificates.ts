/**
 * Certificates of this end of a tunnel, with their private keys: made up, read from files, and read again when those change.
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/**
 * A file is of no use. `Unreadable`: it could not be read. `NotPem`: it does not hold what it should. `KeyMismatch`: the key
 * is that of another certificate. `Expired`: the certificate is past its date. `Unusable`: TLS will not have it, a weak key say.
 */
export class CertificateError extends Schema.TaggedError<CertificateError>()("CertificateError", {
  reason: Schema.Literal("Unreadable", "NotPem", "KeyMismatch", "Expired", "Unusable"),
  /** Which of the parameters names the file. */
  parameter: Schema.Literal("crt", "key", "ca"),
  file: Schema.String,
  /** What is wrong, to stand behind the file's name. */
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.parameter}=${this.file}: ${this.detail}`
  }
}

export interface Certificate {
  /** PEM: the certificate itself, then those that lead to an authority. */
  readonly chain: string
  /** PEM. */
  readonly key: Redacted.Redacted
  /** SHA-256 of the certificate's DER: 64 lower-case hex digits. */
  readonly fingerprint: string
  /** DNS names and IP addresses that it is for. */
  readonly names: ReadonlyArray<string>
  /** Epoch milliseconds. */
  readonly expires: number
}

export interface Files {
  /** Path of a PEM file with the certificate and those that lead to an authority. */
  readonly crt: string
  /** Path of a PEM file with its private key, not encrypted. */
  readonly key: string
}

export class Certificates extends Context.Tag("nodepass/Certificates")<
  Certificates,
  {
    /** A new certificate that nobody has issued, good for ten years. */
    readonly selfSigned: Effect.Effect<Certificate>
    /** Reads a certificate and its key. Fails when they are of no use together or the certificate has expired. */
    readonly load: (files: Files) => Effect.Effect<Certificate, CertificateError>
    /** Reads the PEM texts of authorities out of one file. Fails with `Unreadable` or `NotPem`. */
    readonly authorities: (file: string) => Effect.Effect<ReadonlyArray<string>, CertificateError>
    /**
     * Watches the files while the scope is open. The answer waits until one may have changed since it last answered.
     *
     * Renames over a file and symbolic links set anew count too. Where the system cannot watch, it waits for ever.
     */
    readonly changes: (files: Files) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
  }
>() {}

export interface Options {
  /** The files are read this often even when no change is seen. */
  readonly reloadInterval: Duration.Duration
}

/** The certificate to show to whoever connects now. */
export interface Current {
  readonly get: Effect.Effect<Certificate>
}

/**
 * The certificate in the files, kept up to date while the scope is open.
 *
 * A good one that differs takes the place of the one before, and is logged. Files that are of no use change nothing and
 * are logged as a warning, once as long as they stay wrong in the same way. Fails when they are of no use at first.
 */
export const current = (
  files: Files,
  { reloadInterval }: Options
): Effect.Effect<Current, CertificateError, Certificates | Scope.Scope> =>
  Effect.gen(function* () {
    const certificates = yield* Certificates
    const changed = yield* certificates.changes(files)
    let inForce = yield* certificates.load(files)
    let warned = ""
    const reload = Effect.matchEffect(certificates.load(files), {
      onFailure: ({ message }) => {
        if (message === warned) return Effect.void
        warned = message
        return Effect.logWarning(`${message}; the certificate from before stays in use`)
      },
      onSuccess: (loaded) => {
        warned = ""
        if (isSame(loaded, inForce)) return Effect.void
        inForce = loaded
        return Effect.annotateLogs(Effect.logInfo("new certificate in use"), {
          fingerprint: loaded.fingerprint,
          expires: DateTime.formatIso(DateTime.unsafeMake(loaded.expires))
        })
      }
    })
    const due = Effect.flatMap(Effect.timeoutOption(changed, reloadInterval), (change) =>
      // Whoever writes a certificate writes its key too, and neither at once.
      Option.isNone(change) ? Effect.void : Effect.sleep(settling)
    )
    yield* Effect.forkScoped(Effect.forever(Effect.zipRight(due, reload)))
    return { get: Effect.sync(() => inForce) }
  })

// internal

const settling = "250 millis"

const isSame = (a: Certificate, b: Certificate): boolean =>
  a.chain === b.chain && Redacted.value(a.key) === Redacted.value(b.key)
