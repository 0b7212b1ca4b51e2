#if canImport(CoreAI)
import CoreAI
import Foundation

/// Core AI's assets, for iOS 27. Parts of one asset share its weights.
@available(iOS 27.0, macOS 27.0, *)
public actor CoreAINetworks: Networks {
    public nonisolated let parts: [String]
    private let folder: URL
    private let function: String
    private let entries: [String: [String: (asset: Manifest.Package, entryPoint: String)]]
    private var models: [String: AIModel] = [:]

    public init(folder: URL, manifest: Manifest, clip: Manifest.Clip) {
        self.folder = folder
        function = clip.function
        var names: [String] = []
        var entries: [String: [String: (asset: Manifest.Package, entryPoint: String)]] = [:]
        for asset in manifest.assets {
            for (entryPoint, function) in asset.functions {
                guard let part = function.part, let name = function.function else { continue }
                if entries[part] == nil { names.append(part) }
                entries[part, default: [:]][name] = (asset, entryPoint)
            }
        }
        parts = names
        self.entries = entries
    }

    public func call(_ part: String, _ tensors: Tensors, function: String?) async throws -> Tensors {
        guard let (asset, entryPoint) = entries[part]?[function ?? self.function] ?? entries[part]?["main"] else {
            throw NetworkError.missingFile(part)
        }
        guard let features = asset.functions[entryPoint] else { throw NetworkError.missingFunction(entryPoint) }
        guard let function = try await load(asset).loadFunction(named: entryPoint) else {
            throw NetworkError.missingFunction(entryPoint)
        }
        var inputs: [String: NDArray] = [:]
        for (name, feature) in features.inputs {
            guard let tensor = tensors[name] else { throw NetworkError.missingFeature(name) }
            if feature.dtype == "int32" {
                inputs[name] = NDArray(scalars: tensor.values.map { Int32($0) }, shape: tensor.shape)
            } else if feature.dtype == "float32" {
                inputs[name] = NDArray(scalars: tensor.values, shape: tensor.shape)
            } else {
                inputs[name] = NDArray(scalars: tensor.values.map { Float16($0) }, shape: tensor.shape)
            }
        }
        var outputs = try await function.run(inputs: inputs)
        var result: Tensors = [:]
        for (name, feature) in features.outputs {
            guard let array = outputs.remove(name)?.ndArray else { throw NetworkError.missingFeature(name) }
            result[name] = tensor(array, isHalf: feature.dtype == "float16")
        }
        return result
    }

    public func release(_ prefix: String) {
        models = models.filter { !$0.key.hasPrefix(prefix) }
    }

    private func load(_ asset: Manifest.Package) async throws -> AIModel {
        if let model = models[asset.name] { return model }
        let model = try await AIModel(contentsOf: folder.appending(path: asset.file))
        models[asset.name] = model
        return model
    }

    private func tensor(_ array: NDArray, isHalf: Bool) -> Tensor {
        array.rawView().withUnsafeBytes { bytes, shape, strides in
            let sizes = (0..<shape.count).map { shape[$0] }
            let positions = offsets(shape: sizes, strides: (0..<strides.count).map { strides[$0] })
            let values = isHalf
                ? positions.map { Float(bytes.bindMemory(to: Float16.self)[$0]) }
                : positions.map { bytes.bindMemory(to: Float.self)[$0] }
            return Tensor(shape: sizes, values: values)
        }
    }
}
#endif
