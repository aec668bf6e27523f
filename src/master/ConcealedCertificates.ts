/**
 * `Certificates` whose errors do not show why a file cannot be used. A caller of the API can name any file of the machine; the
 * error must not reveal whether it exists, what it is, or who may read it. The log of the process has the reason.
 */
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import { CertificateError, Certificates } from "../transport/Certificates.js"

/** The fiber that builds it has the loggers of the process; those that use it have the logger of an instance. */
export const layer: Layer.Layer<Certificates, never, Certificates> = Layer.effect(
  Certificates,
  Effect.gen(function* () {
    const certificates = yield* Certificates
    const loggers = yield* FiberRef.get(FiberRef.currentLoggers)
    const level = yield* FiberRef.get(FiberRef.currentMinimumLogLevel)
    const conceal =
      (shown: { readonly parameter: "crt" | "ca"; readonly file: string; readonly detail: string }) =>
      <A>(self: Effect.Effect<A, CertificateError>): Effect.Effect<A, CertificateError> =>
        Effect.catchAll(self, ({ message }) =>
          Effect.logError(message).pipe(
            Effect.locally(FiberRef.currentLoggers, loggers),
            Effect.locally(FiberRef.currentMinimumLogLevel, level),
            Effect.zipRight(new CertificateError({ ...shown, reason: "Concealed" }))
          )
        )
    return Certificates.of({
      ...certificates,
      // One sentence for both files: otherwise a certificate that exists shows what is wrong with any other file as its key.
      load: ({ crt, key }) =>
        certificates
          .load({ crt, key })
          .pipe(conceal({ parameter: "crt", file: crt, detail: `cannot be used with key=${key}; ${whereElse}` })),
      authorities: (file) =>
        certificates.authorities(file).pipe(conceal({ parameter: "ca", file, detail: `cannot be used; ${whereElse}` }))
    })
  })
)

// internal

const whereElse = "the log of the master's process has the reason"
