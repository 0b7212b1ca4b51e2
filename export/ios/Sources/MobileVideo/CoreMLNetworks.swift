import CoreML
import Foundation

/// Core ML's packages, for iOS 18 to 26. Each function of a package is loaded on its own.
public actor CoreMLNetworks: Networks {
    public nonisolated let parts: [String]
    private let folder: URL
    private let function: String
    private let packages: [String: Manifest.Package]
    private var models: [String: MLModel] = [:]

    public init(folder: URL, manifest: Manifest, clip: Manifest.Clip) {
        self.folder = folder
        parts = manifest.packages.map(\.name)
        packages = Dictionary(uniqueKeysWithValues: manifest.packages.map { ($0.name, $0) })
        function = clip.function
    }

    public func call(_ part: String, _ tensors: Tensors, function: String?) async throws -> Tensors {
        guard let package = packages[part] else { throw NetworkError.missingFile(part) }
        let model = try await load(package, function ?? self.function)
        var inputs: [String: MLFeatureValue] = [:]
        for (name, description) in model.modelDescription.inputDescriptionsByName {
            guard let tensor = tensors[name] else { throw NetworkError.missingFeature(name) }
            let type = description.multiArrayConstraint?.dataType ?? .float16
            inputs[name] = MLFeatureValue(multiArray: try array(tensor, type))
        }
        let outputs = try await model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        var result: Tensors = [:]
        for name in outputs.featureNames {
            guard let values = outputs.featureValue(for: name)?.multiArrayValue else {
                throw NetworkError.missingFeature(name)
            }
            result[name] = tensor(values)
        }
        return result
    }

    public func release(_ prefix: String) {
        models = models.filter { !$0.key.hasPrefix(prefix) }
    }

    private func load(_ package: Manifest.Package, _ function: String) async throws -> MLModel {
        let isOne = package.functions.count == 1
        let key = isOne ? package.name : package.name + "." + function
        if let model = models[key] { return model }
        let settings = MLModelConfiguration()
        settings.computeUnits = .cpuAndNeuralEngine
        if !isOne, package.functions[function] != nil { settings.functionName = function }
        let compiled = try await MLModel.compileModel(at: folder.appending(path: package.file))
        let model = try await MLModel.load(contentsOf: compiled, configuration: settings)
        models[key] = model
        return model
    }

    private func array(_ tensor: Tensor, _ type: MLMultiArrayDataType) throws -> MLMultiArray {
        let shape = tensor.shape.map { NSNumber(value: $0) }
        let array = try MLMultiArray(shape: shape, dataType: type)
        array.withUnsafeMutableBytes { bytes, strides in
            for (offset, value) in zip(offsets(shape: tensor.shape, strides: strides), tensor.values) {
                if type == .int32 {
                    bytes.bindMemory(to: Int32.self)[offset] = Int32(value)
                } else {
                    bytes.bindMemory(to: Float16.self)[offset] = Float16(value)
                }
            }
        }
        return array
    }

    private func tensor(_ array: MLMultiArray) -> Tensor {
        let shape = array.shape.map(\.intValue)
        let positions = offsets(shape: shape, strides: array.strides.map(\.intValue))
        let values = array.withUnsafeBytes { bytes in
            positions.map { Float(bytes.bindMemory(to: Float16.self)[$0]) }
        }
        return Tensor(shape: shape, values: values)
    }
}
