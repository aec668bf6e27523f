/**
 * Resources of Node that a Scope closes.
 */
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"

/**
 * Opens a resource that the scope closes.
 *
 * The finalizer is in the scope before the resource exists, so no interruption can leak it. `open` passes the resource to
 * `own` as soon as it exists. When `open` fails or is interrupted, the resource is closed at once.
 */
export const owned = <R, A, E>(
  close: (resource: R) => void,
  open: (own: (resource: R) => void) => Effect.Effect<A, E>
): Effect.Effect<A, E, Scope.Scope> =>
  Effect.scopeWith((scope) => {
    let resource: R | undefined
    const release = Effect.sync(() => {
      if (resource !== undefined) close(resource)
    })
    return Effect.zipRight(
      Scope.addFinalizer(scope, release),
      Effect.onError(
        open((opened) => {
          resource = opened
        }),
        () => release
      )
    )
  })
