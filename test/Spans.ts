/**
 * Records the spans that a program starts.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

export interface Spans {
  /** The name of each span, after the names of its parents: `outer > inner`. */
  readonly names: () => ReadonlyArray<string>
  /** Records the spans of the effect, and of every fiber that it forks. */
  readonly record: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (): Spans => {
  const names: Array<string> = []
  const paths = new Map<string, string>()
  return {
    names: () => names,
    record: (self) =>
      Effect.flatMap(Effect.tracer, (tracer) =>
        Effect.withTracer(
          self,
          Tracer.make({
            span: (name, parent, ...rest) => {
              const span = tracer.span(name, parent, ...rest)
              const outer = Option.match(parent, { onNone: () => undefined, onSome: ({ spanId }) => paths.get(spanId) })
              const path = outer === undefined ? name : `${outer} > ${name}`
              paths.set(span.spanId, path)
              names.push(path)
              return span
            },
            context: (execution, fiber) => tracer.context(execution, fiber)
          })
        )
      )
  }
}
