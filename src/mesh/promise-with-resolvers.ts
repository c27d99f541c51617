/** Gives Node 20 the `Promise.withResolvers` that this libp2p line calls. Import it before libp2p. */

interface Resolvers<T> {
  promise: Promise<T>;
  resolve: (value: T | PromiseLike<T>) => void;
  reject: (reason?: unknown) => void;
}

if (!('withResolvers' in Promise)) {
  Object.defineProperty(Promise, 'withResolvers', {
    configurable: true,
    writable: true,
    value: function withResolvers<T>(this: PromiseConstructor): Resolvers<T> {
      const resolvers: Partial<Resolvers<T>> = {};
      resolvers.promise = new this<T>((resolve, reject) => {
        resolvers.resolve = resolve;
        resolvers.reject = reject;
      });
      return resolvers as Resolvers<T>;
    },
  });
}
