import Foundation

/// Numbers in rows, the last axis fastest.
public struct Tensor: Sendable {
    public let shape: [Int]
    public var values: [Float]

    public init(shape: [Int], values: [Float]) {
        self.shape = shape
        self.values = values
    }
}

public typealias Tensors = [String: Tensor]

public enum NetworkError: Error {
    case missingFile(String)
    case missingFunction(String)
    case missingFeature(String)
}

/// The networks of an exported folder, by the names of its parts: text, dit or dit_0, dit_1, …, and of the decoder
/// vae_first and vae_next, or vae.
public protocol Networks: Sendable {
    /// The names of all parts, the transformer's chunks in their order.
    var parts: [String] { get }

    /// A part's outputs. Of the tensors it takes those that are its inputs; it is loaded at its first call. Of several
    /// functions the one named is called, or that of the clip.
    func call(_ part: String, _ tensors: Tensors, function: String?) async throws -> Tensors

    /// Frees the memory of all parts whose name begins so.
    func release(_ prefix: String) async
}

extension Networks {
    func call(_ part: String, _ tensors: Tensors) async throws -> Tensors {
        try await call(part, tensors, function: nil)
    }
}

/// The outputs kept_NAME of a call, as inputs past_NAME of a later one.
func past(_ outputs: Tensors) -> Tensors {
    var result: Tensors = [:]
    for (name, tensor) in outputs where name.hasPrefix("kept_") {
        result["past_" + name.dropFirst("kept_".count)] = tensor
    }
    return result
}

/// The offset of each element, in rows, in a buffer with these strides: runtimes may pad rows.
func offsets(shape: [Int], strides: [Int]) -> [Int] {
    var result = [0]
    for (size, stride) in zip(shape, strides) {
        result = result.flatMap { start in (0..<size).map { start + $0 * stride } }
    }
    return result
}
